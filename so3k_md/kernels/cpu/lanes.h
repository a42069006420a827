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

/// Vectors of COUNT numbers.
template <typename T, int64_t COUNT> struct Vector {
  typedef T type __attribute__((vector_size(COUNT * sizeof(T)), aligned(sizeof(T)), may_alias));
};
constexpr int64_t FEWEST = 4;    // numbers in the narrowest vector

/// Calls `work(n, V())` for all n from first to last, V a register, at the end narrower vectors and
/// one number.
template <typename T, typename Work> inline void each(int64_t first, int64_t last, Work work)
{
  int64_t n = first;
  for (; n + Lanes<T>::COUNT <= last; n += Lanes<T>::COUNT) work(n, Lane<T>());
  if constexpr (Lanes<T>::COUNT > 2 * FEWEST)
    if (n + 2 * FEWEST <= last) {
      work(n, typename Vector<T, 2 * FEWEST>::type());
      n += 2 * FEWEST;
    }
  if constexpr (Lanes<T>::COUNT > FEWEST)
    if (n + FEWEST <= last) {
      work(n, typename Vector<T, FEWEST>::type());
      n += FEWEST;
    }
  for (; n < last; ++n) work(n, T());
}

/// A sum that is added to in registers, in narrower vectors or in single numbers.
template <typename T> struct Sum {
  Lane<T> lanes = {};
  typename Vector<T, FEWEST>::type few = {};
  T rest = 0;

  template <typename V> void operator+=(V values)
  {
    if constexpr (sizeof(V) == sizeof(T))
      rest += values;
    else if constexpr (sizeof(V) == sizeof(lanes))
      lanes += values;
    else
      few += folded<FEWEST>(values);
  }
  T total() const { return rest + across(lanes) + across(few); }

 private:
  /// Halves added to each other until COUNT numbers are left.
  template <int64_t COUNT, typename V> static auto folded(V values)
  {
    if constexpr (sizeof(V) <= COUNT * sizeof(T)) {
      return values;
    } else {
      typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
      Half low, high;
      std::memcpy(&low, &values, sizeof(low));
      std::memcpy(&high, reinterpret_cast<const char *>(&values) + sizeof(low), sizeof(high));
      return folded<COUNT>(low + high);
    }
  }
  template <typename V> static T across(V values)
  {
    const auto two = folded<2>(values);
    return two[0] + two[1];
  }
};

}    // namespace So3k

#endif
