/* so3k-md: matrix products on tensor cores with the accuracy of float32. MIT.
 *
 * A number is the sum of two in bfloat16, hi + lo. Three products, lo hi + hi lo + hi hi, summed in
 * float32, lose about 2⁻¹⁶ of the largest term. */

#ifndef SO3K_GPU_PRODUCT_H
#define SO3K_GPU_PRODUCT_H

#include "warp.h"

namespace So3k {

/// Two numbers as two pairs of bfloat16, the first number in the lower half of each word.
inline __device__ void split(float a, float b, unsigned &hi, unsigned &lo)
{
#ifdef __CUDACC_RTC__
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(hi) : "f"(b), "f"(a));
  const float rest_a = a - __uint_as_float(hi << 16);
  const float rest_b = b - __uint_as_float(hi & 0xffff0000u);
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(lo) : "f"(rest_b), "f"(rest_a));
#else
  hi = emulate::bf16_pair(a, b);
  lo = emulate::bf16_pair(a - emulate::of_bf16(hi, 0), b - emulate::of_bf16(hi, 1));
#endif
}

/// c += a b of (16, 16) and (16, 8) numbers in bfloat16.
inline __device__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
#ifdef __CUDACC_RTC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  emulate::mma(c, a, b0, b1, __LINE__);
#endif
}

/// The left factor, (16, 16).
struct Operand {
  unsigned hi[4], lo[4];

  /// Columns 2 quad and 2 quad + 1 of the left (0) or right (1) half of row `group` (0) or `group +
  /// 8` (1).
  __device__ void set(int row, int half, float a, float b)
  {
    split(a, b, hi[row + 2 * half], lo[row + 2 * half]);
  }
};

/// c += a b, where b is the fragment of this thread: hi of both halves of its column, lo of both.
inline __device__ void multiply(float (&c)[4], const Operand &a, const uint4 *b)
{
  const uint4 part = four(b);
  mma(c, a.lo, part.x, part.y);
  mma(c, a.hi, part.z, part.w);
  mma(c, a.hi, part.x, part.y);
}

}    // namespace So3k

#endif
