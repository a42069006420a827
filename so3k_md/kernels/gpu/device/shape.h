/* so3k-md: the shape of a layer, known when its kernels are compiled. MIT. */

#ifndef SO3K_GPU_SHAPE_H
#define SO3K_GPU_SHAPE_H

namespace So3k {

/// Widths are multiples of 16; the columns that this adds to a head, or to a filter, are zero.
struct Shape {
  static constexpr int HEADS = SO3K_HEADS,
                       WIDE = SO3K_WIDE;    // heads of features, columns of each
  static constexpr int DEGREES = SO3K_DEGREES,
                       NARROW = SO3K_NARROW;       // heads of degrees, columns of each
  static constexpr int HIDDEN = SO3K_HIDDEN;       // of a spherical filter; 0: all χ are zero
  static constexpr int RADIAL = SO3K_RADIAL;       // functions of the distance
  static constexpr bool SQUARED = SO3K_SQUARED;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖
  static constexpr int FEATURES = HEADS * WIDE, COLUMNS = FEATURES + DEGREES * NARROW;
  static constexpr int INNER = HIDDEN + RADIAL;

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

constexpr int ORDERS = Shape::order(Shape::DEGREES);

}    // namespace So3k

#endif
