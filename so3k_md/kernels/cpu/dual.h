/* so3k-md: dual numbers, which carry their derivative along one direction. MIT.
 *
 * Training needs the derivative of a backward pass. It is the same backward pass in dual numbers:
 * each formula of the parts for training is written once, with D = false for numbers and D = true
 * for dual numbers. What a pass in numbers has found is kept, so that the pass in dual numbers
 * computes derivatives alone. */

#ifndef SO3K_DUAL_H
#define SO3K_DUAL_H

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "lanes.h"

namespace So3k {

/// v + ε d with ε² = 0; V is a number or a register of numbers.
template <typename V> struct Dual {
  V v, d;
};

template <typename V> struct IsDual : std::false_type {};
template <typename V> struct IsDual<Dual<V>> : std::true_type {};
/// V, or Dual<V> if D.
template <typename V, bool D> using Number = std::conditional_t<D, Dual<V>, V>;

template <typename A, typename B> auto operator+(const Dual<A> &a, const Dual<B> &b)
{
  return Dual<decltype(a.v + b.v)>{a.v + b.v, a.d + b.d};
}
template <typename A, typename B> auto operator-(const Dual<A> &a, const Dual<B> &b)
{
  return Dual<decltype(a.v - b.v)>{a.v - b.v, a.d - b.d};
}
template <typename A, typename B> auto operator*(const Dual<A> &a, const Dual<B> &b)
{
  return Dual<decltype(a.v * b.v)>{a.v * b.v, a.v * b.d + a.d * b.v};
}
template <typename A, typename B> auto operator/(const Dual<A> &a, const Dual<B> &b)
{
  const auto ratio = a.v / b.v;
  return Dual<decltype(a.v / b.v)>{ratio, (a.d - ratio * b.d) / b.v};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator*(const Dual<A> &a, const B &b)
{
  return Dual<decltype(a.v * b)>{a.v * b, a.d * b};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator*(const B &b, const Dual<A> &a)
{
  return Dual<decltype(b * a.v)>{b * a.v, b * a.d};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator+(const Dual<A> &a, const B &b)
{
  return Dual<A>{a.v + b, a.d};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator-(const Dual<A> &a, const B &b)
{
  return Dual<A>{a.v - b, a.d};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator+(const B &b, const Dual<A> &a)
{
  return a + b;
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator-(const B &b, const Dual<A> &a)
{
  return Dual<A>{b - a.v, -a.d};
}
template <typename A> Dual<A> operator-(const Dual<A> &a)
{
  return {-a.v, -a.d};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator/(const Dual<A> &a, const B &b)
{
  return Dual<A>{a.v / b, a.d / b};
}
template <typename A, typename B, typename = std::enable_if_t<!IsDual<B>::value>>
auto operator/(const B &b, const Dual<A> &a)
{
  const auto ratio = b / a.v;
  return Dual<A>{ratio, -ratio * a.d / a.v};
}

using std::cos;
using std::sin;
using std::sqrt;
/// Of each number of a register.
inline Lane<float> sqrt(Lane<float> numbers)
{
  for (int64_t n = 0; n < Lanes<float>::COUNT; ++n) numbers[n] = std::sqrt(numbers[n]);
  return numbers;
}
inline Lane<double> sqrt(Lane<double> numbers)
{
  for (int64_t n = 0; n < Lanes<double>::COUNT; ++n) numbers[n] = std::sqrt(numbers[n]);
  return numbers;
}
template <typename V> Dual<V> sqrt(const Dual<V> &a)
{
  const V root = sqrt(a.v);
  return {root, a.d / (root + root)};
}
template <typename V> Dual<V> cos(const Dual<V> &a)
{
  return {cos(a.v), -sin(a.v) * a.d};
}
template <typename V> Dual<V> sin(const Dual<V> &a)
{
  return {sin(a.v), cos(a.v) * a.d};
}

/// The part that a pass computes: the derivative of a dual number, or the number.
template <typename V> const V &part(const V &number)
{
  return number;
}
template <typename V> const V &part(const Dual<V> &number)
{
  return number.d;
}
/// The number without its derivative.
template <typename V> const V &value(const V &number)
{
  return number;
}
template <typename V> const V &value(const Dual<V> &number)
{
  return number.v;
}

/// A tensor of dual numbers. A pass in numbers makes v, a pass in dual numbers reads v and makes d.
struct DualTensor {
  at::Tensor v, d;

  at::Tensor &part(bool dual) { return dual ? d : v; }
  const at::Tensor &part(bool dual) const { return dual ? d : v; }
  DualTensor narrow(int64_t dim, int64_t first, int64_t count) const
  {
    return {v.narrow(dim, first, count), d.defined() ? d.narrow(dim, first, count) : d};
  }
};

/// The numbers from here on that fill a V.
template <typename V, typename T> V loaded(const T *from)
{
  V numbers;
  std::memcpy(&numbers, from, sizeof(V));
  return numbers;
}

/// Reads the numbers of a contiguous tensor.
template <typename T, bool D> class Reader {
 public:
  explicit Reader(const DualTensor &of) :
      v(of.v.const_data_ptr<T>()), d(D ? of.d.const_data_ptr<T>() : nullptr)
  {
  }

  Reader from(int64_t first) const { return {v + first, D ? d + first : nullptr}; }
  /// The numbers from k on that fill a V.
  template <typename V = T> Number<V, D> at(int64_t k) const
  {
    if constexpr (D)
      return Dual<V>{loaded<V>(v + k), loaded<V>(d + k)};
    else
      return loaded<V>(v + k);
  }

 private:
  Reader(const T *v, const T *d) : v(v), d(d) {}

  const T *v, *d;
};

template <typename T, typename V> void store(T *to, const V &numbers)
{
  std::memcpy(to, &numbers, sizeof(V));
}
/// Adds the part that a pass computes to the numbers from here on.
template <typename T, typename V> void add(T *to, const V &numbers)
{
  auto sum = part(numbers);
  std::memcpy(&sum, to, sizeof(sum));
  sum += part(numbers);
  store(to, sum);
}

/// A sum of numbers or dual numbers that is added to in registers or in single numbers.
template <typename T, bool D> struct Total {
  Sum<T> v, d;

  template <typename V> void operator+=(const V &numbers)
  {
    if constexpr (D) {
      v += numbers.v;
      d += numbers.d;
    } else {
      v += numbers;
    }
  }
  Number<T, D> total() const
  {
    if constexpr (D)
      return Dual<T>{v.total(), d.total()};
    else
      return v.total();
  }
};

}    // namespace So3k

#endif
