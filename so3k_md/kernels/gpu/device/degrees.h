/* so3k-md: the degrees of the SPHCs, known when kernels are compiled. MIT. */

#ifndef SO3K_GPU_DEGREES_H
#define SO3K_GPU_DEGREES_H

namespace So3k {

struct Degrees {
  static constexpr int DEGREES = SO3K_DEGREES;    // their number

  static __device__ constexpr int degree(int l)
  {
    constexpr int all[] = {SO3K_EACH_DEGREE};
    return all[l];
  }
  /// Where the orders of degree number l begin; order(DEGREES) is the number of orders.
  static __device__ constexpr int order(int l)
  {
    int first = 0;
    for (int n = 0; n < l; ++n) first += 2 * degree(n) + 1;
    return first;
  }
};

constexpr int ORDERS = Degrees::order(Degrees::DEGREES);

}    // namespace So3k

#endif
