/* so3k-md: vectors of numbers in a register. MIT. */

#ifndef SO3K_LANES_H
#define SO3K_LANES_H

#include <cstdint>
#include <cstring>

namespace So3k {

/// As many numbers as one register of this processor holds.
template <typename T> struct Lanes {
#if defined(__AVX512F__)
  static constexpr int64_t BYTES = 64;
#elif defined(__AVX__)
  static constexpr int64_t BYTES = 32;
#else
  static constexpr int64_t BYTES = 16;
#endif
  typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
  static constexpr int64_t COUNT = BYTES / sizeof(T);
};

template <typename T> using Lane = typename Lanes<T>::type;

/// The numbers from here on that fill a `V`, a register or one number.
template <typename V, typename T> inline V &as(T *numbers)
{
  return *reinterpret_cast<V *>(numbers);
}
template <typename V, typename T> inline const V &as(const T *numbers)
{
  return *reinterpret_cast<const V *>(numbers);
}

/// Calls `work(n, V())` for all n from first to last, V a register and at the end one number.
template <typename T, typename Work> inline void each(int64_t first, int64_t last, Work work)
{
  int64_t n = first;
  for (; n + Lanes<T>::COUNT <= last; n += Lanes<T>::COUNT) work(n, Lane<T>());
  for (; n < last; ++n) work(n, T());
}

/// A sum that is added to in registers or in single numbers.
template <typename T> struct Sum {
  Lane<T> lanes = {};
  T rest = 0;

  void operator+=(Lane<T> values) { lanes += values; }
  void operator+=(T value) { rest += value; }
  T total() const { return rest + across(lanes); }

 private:
  template <typename V> static T across(V values)
  {
    if constexpr (sizeof(V) <= 2 * sizeof(T)) {
      return values[0] + values[1];
    } else {
      typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
      Half low, high;
      std::memcpy(&low, &values, sizeof(low));
      std::memcpy(&high, reinterpret_cast<const char *>(&values) + sizeof(low), sizeof(high));
      return across<Half>(low + high);
    }
  }
};

}    // namespace So3k

#endif
