/* so3k-md: the cells into which atoms are sorted to find their neighbors. MIT. */

#ifndef SO3K_GPU_GRID_H
#define SO3K_GPU_GRID_H

#include "entry.h"
#include "lists.h"

namespace So3k {

/// The inverse of a cell of lattice vectors in rows.
struct Inverse {
  double m[9];

  explicit __device__ Inverse(const double *cell)
  {
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        const int a1 = (a + 1) % 3, a2 = (a + 2) % 3, b1 = (b + 1) % 3, b2 = (b + 2) % 3;
        m[3 * a + b] =
            cell[3 * b1 + a1] * cell[3 * b2 + a2] - cell[3 * b1 + a2] * cell[3 * b2 + a1];
      }
    const double volume = cell[0] * m[0] + cell[1] * m[3] + cell[2] * m[6];
    for (double &element : m) element /= volume;
  }
  /// Fractional coordinate of a point along a lattice vector.
  __device__ double along(const double *r, int axis) const
  {
    return r[0] * m[axis] + r[1] * m[3 + axis] + r[2] * m[6 + axis];
  }
  /// Distance of the faces of the cell between which a lattice vector leads.
  __device__ double height(int axis) const
  {
    return 1 / sqrt(m[axis] * m[axis] + m[3 + axis] * m[3 + axis] + m[6 + axis] * m[6 + axis]);
  }
};

/// A place among the cells, and the image in which it is seen.
struct Site {
  int cell;
  Image image;
};

/// Cells of which each has about as many atoms as a warp has lanes; the radius spans one or two.
///
/// Without a boundary the cells repeat along each axis, so that a number of them covers any space.
/// Atoms that thus share a cell are told apart by their distance.
struct Grid {
  static constexpr double WIDE = 10;    // Å, a radius that spans two cells
  Inverse inverse;
  bool periodic;
  double side;    // of cells without a boundary, Å
  int n[3], reach[3];

  explicit __device__ Grid(const NeighborLists &of) : inverse(of.cell), periodic(of.periodic)
  {
    const double radius = of.far + of.skin;
    side = radius > WIDE ? radius / 2 : radius;
    for (int a = 0; a < 3; ++a) {
      const double height = inverse.height(a);
      n[a] = periodic ? static_cast<int>(fmin(fmax(height / side, 1.0), double(of.cells)))
                      : static_cast<int>(cbrt(of.cells + 0.5));
    }
    while (static_cast<double>(n[0]) * n[1] * n[2] > of.cells) {
      int *most = n[0] >= n[1] ? (n[0] >= n[2] ? n : n + 2) : (n[1] >= n[2] ? n + 1 : n + 2);
      *most = (*most + 1) / 2;
    }
    for (int a = 0; a < 3; ++a) {
      const double width = periodic ? inverse.height(a) / n[a] : side;
      reach[a] = static_cast<int>(fmin(ceil(radius / width), Image::LARGEST + 1.0));
    }
  }

  /// Whether images of neighbors are too many to be told by their bytes.
  __device__ bool too_thin() const
  {
    return periodic &&
        max(max(reach[0] / n[0], reach[1] / n[1]), reach[2] / n[2]) >= Image::LARGEST;
  }
  /// Number of the cells around one.
  __device__ int count() const
  {
    if (too_thin()) return 0;
    return (2 * reach[0] + 1) * (2 * reach[1] + 1) * (2 * reach[2] + 1);
  }
  /// The cells along an axis in which a point of the first image lies.
  __device__ int place(const double *r, int axis) const
  {
    const double all = n[axis];
    double at = floor(periodic ? inverse.along(r, axis) * all : r[axis] / side);
    if (!periodic) at -= all * floor(at / all);
    return static_cast<int>(fmin(fmax(at, 0.0), all - 1));    // numbers only, also for NaN
  }
  __device__ int cell_of(const double *r) const
  {
    return (place(r, 0) * n[1] + place(r, 1)) * n[2] + place(r, 2);
  }
  /// Number k of the cells around the one of a point.
  __device__ Site around(const int (&home)[3], int k) const
  {
    int at[3], image[3];
    for (int a = 2; a >= 0; --a) {
      const int across = 2 * reach[a] + 1, to = home[a] + k % across - reach[a];
      k /= across;
      image[a] = (to >= 0 ? to : to - n[a] + 1) / n[a];
      at[a] = to - image[a] * n[a];
      if (!periodic) image[a] = 0;
    }
    return {(at[0] * n[1] + at[1]) * n[2] + at[2], Image::of(image[0], image[1], image[2])};
  }
};

}    // namespace So3k

#endif
