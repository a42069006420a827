/* so3k-md: the shape of a layer, known when its kernels are compiled. MIT. */

#ifndef SO3K_GPU_SHAPE_H
#define SO3K_GPU_SHAPE_H

#include "degrees.h"

namespace So3k {

/// Widths are multiples of 16; the columns that this adds to a head, or to a filter, are zero.
struct Shape : Degrees {
  static constexpr int HEADS = SO3K_HEADS;           // of features; non-local attention has none
  static constexpr int PARTS = HEADS > 0 ? 2 : 1;    // filters: of features, of degrees
  static constexpr int WIDE = SO3K_WIDE;             // columns of one of them
  static constexpr int NARROW = SO3K_NARROW;         // columns of the head of a degree
  static constexpr int HIDDEN = SO3K_HIDDEN;         // of a spherical filter; 0: all χ are zero
  static constexpr int RADIAL = SO3K_RADIAL;         // functions of the distance
  static constexpr bool SQUARED = SO3K_SQUARED;      // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖
  static constexpr int FEATURES = HEADS * WIDE, COLUMNS = FEATURES + DEGREES * NARROW;
  static constexpr int INNER = HIDDEN + RADIAL;
};

}    // namespace So3k

#endif
