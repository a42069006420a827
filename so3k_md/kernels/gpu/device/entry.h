/* so3k-md: entries of rows of neighbors. MIT. */

#ifndef SO3K_GPU_ENTRY_H
#define SO3K_GPU_ENTRY_H

namespace So3k {

/// A lattice translation by small whole numbers, in the three lower bytes.
struct Image {
  static constexpr int LARGEST = 127;
  int packed;

  static __device__ Image of(int a, int b, int c)
  {
    return {(a & 0xff) | (b & 0xff) << 8 | (c & 0xff) << 16};
  }
  __device__ int along(int axis) const { return static_cast<signed char>(packed >> 8 * axis); }
};

/// A neighbor: source row and image.
struct Entry {
  int source;
  Image image;

  __device__ Entry(int source, Image image) : source(source), image(image) {}
  explicit __device__ Entry(long long packed) :
      source(static_cast<int>(packed)), image{static_cast<int>(packed >> 32)}
  {
  }
  __device__ long long packed() const
  {
    return static_cast<long long>(image.packed) << 32 | static_cast<unsigned>(source);
  }
};

/// r_j - r_i + image · cell. The vector of the pair seen from the other side is its exact negative.
inline __device__ void between(const double *r_i, const double *r_j, Image image,
                               const double *cell, double (&d)[3])
{
  for (int x = 0; x < 3; ++x) d[x] = r_j[x] - r_i[x];
  if (image.packed == 0) return;
  for (int x = 0; x < 3; ++x)
    d[x] += image.along(0) * cell[x] + image.along(1) * cell[3 + x] + image.along(2) * cell[6 + x];
}

inline __device__ double square_of(const double (&d)[3])
{
  return d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
}

}    // namespace So3k

#endif
