/* so3k-md: work in parts, one for each thread that torch may use, with sums in a fixed order. MIT.
 */

#ifndef SO3K_THREADS_H
#define SO3K_THREADS_H

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace So3k {

/// Number of parts of some items: one for each thread (torch.set_num_threads, OMP_NUM_THREADS), but
/// none smaller than `least` items.
inline int64_t parts_of(int64_t items, int64_t least)
{
  if (at::in_parallel_region()) return 1;
  return std::clamp<int64_t>(items / least, 1, at::get_num_threads());
}

/// Where part n begins; part n − 1 ends there.
inline int64_t bound(int64_t items, int64_t parts, int64_t n)
{
  return items * n / parts;
}

/// work(part) for each part.
template <typename Work> void in_parts(int64_t parts, Work work)
{
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (auto part = begin; part < end; ++part) work(part);
  });
}

/// work(first, last) for each part of some items.
template <typename Work> void in_ranges(int64_t items, int64_t least, Work work)
{
  const auto parts = parts_of(items, least);
  in_parts(parts,
           [&](int64_t part) { work(bound(items, parts, part), bound(items, parts, part + 1)); });
}

/// A tensor to which all parts add. Each part has zeros of its own, and `add` sums them in the
/// order of the parts, so that the result is the same at each call with the same number of threads.
template <typename T> class PartialSums {
 public:
  /// `whole`: contiguous; the first part adds to it directly.
  PartialSums(at::Tensor whole, int64_t parts) : whole(std::move(whole)), n(this->whole.numel())
  {
    if (parts > 1) others = at::zeros({parts - 1, n}, this->whole.options());
  }

  T *of(int64_t part) const
  {
    return part == 0 ? whole.data_ptr<T>() : others.data_ptr<T>() + (part - 1) * n;
  }

  void add() const
  {
    if (!others.defined()) return;
    const auto rows = others.size(0);
    const T *from = others.const_data_ptr<T>();
    T *to = whole.data_ptr<T>();
    constexpr int64_t SOME = 16384;
    in_ranges(n, SOME, [&](int64_t first, int64_t last) {
      for (int64_t row = 0; row < rows; ++row)
#pragma omp simd
        for (auto k = first; k < last; ++k) to[k] += from[row * n + k];
    });
  }

 private:
  at::Tensor whole, others;
  int64_t n;
};

}    // namespace So3k

#endif
