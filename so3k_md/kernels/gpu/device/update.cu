/* so3k-md: the loops of `update` over atoms, a thread for each degree or feature of an atom. MIT.
 */

#include "exchange.h"

namespace So3k {

constexpr int THREADS = 128;    // of a block

template <typename Work> inline __device__ void each(long long rows, int count, Work work)
{
  const long long thread = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (thread < rows * count) work(thread / count, static_cast<int>(thread % count));
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    chi_norms(const So3k::ChiNorms<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.forward(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    chi_norms_back(const So3k::ChiNorms<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.backward(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    chi_invariants(const So3k::ChiInvariants<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.forward(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    chi_invariants_back(const So3k::ChiInvariants<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.backward(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    exchange_features(const So3k::Exchange<float> of)
{
  So3k::each(of.rows, of.shape.features, [&](long long n, int k) { of.feature(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    exchange_features_back(const So3k::Exchange<float> of)
{
  So3k::each(of.rows, of.shape.features, [&](long long n, int k) { of.feature_backward(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    exchange_degrees(const So3k::Exchange<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.degree(n, k); });
}
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    exchange_degrees_back(const So3k::Exchange<float> of)
{
  So3k::each(of.rows, of.shape.degrees, [&](long long n, int k) { of.degree_backward(n, k); });
}
