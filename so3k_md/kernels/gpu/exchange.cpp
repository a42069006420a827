/* so3k-md: the exchange between features and SPHCs of each atom on a GPU. MIT. */

#include "../cpu/differentiable.h"
#include "../cpu/operators.h"
#include "../cpu/update.h"
#include "program.h"

using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int THREADS = 128;    // of device/update.cu

  /// The kernel of device/update.cu for a function of exchange.h.
  template <auto member> constexpr const char *KERNEL = nullptr;
  template <> constexpr auto KERNEL<&ChiNorms<float>::forward> = "chi_norms";
  template <> constexpr auto KERNEL<&ChiNorms<float>::backward> = "chi_norms_back";
  template <> constexpr auto KERNEL<&ChiInvariants<float>::forward> = "chi_invariants";
  template <> constexpr auto KERNEL<&ChiInvariants<float>::backward> = "chi_invariants_back";
  template <> constexpr auto KERNEL<&Exchange<float>::feature> = "exchange_features";
  template <> constexpr auto KERNEL<&Exchange<float>::feature_backward> = "exchange_features_back";
  template <> constexpr auto KERNEL<&Exchange<float>::degree> = "exchange_degrees";
  template <> constexpr auto KERNEL<&Exchange<float>::degree_backward> = "exchange_degrees_back";

  /// Loops over atoms by kernels.
  struct GpuLoops {
    c10::Device device;

    template <auto member, typename Of> void degrees(const Of &of) const
    {
      each<member>(of, of.shape.degrees);
    }
    template <auto member, typename Of> void features(const Of &of) const
    {
      each<member>(of, of.shape.features);
    }

   private:
    template <auto member, typename Of> void each(const Of &of, int count) const
    {
      launch({"update.cu", {}}, KERNEL<member>, device, (of.rows * count + THREADS - 1) / THREADS,
             THREADS, &of);
    }
  };

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const UpdateArguments of(next);
    require_float(of.x);
    next.give(Update<float, GpuLoops>(of, {of.x.device()}).forward());
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    update_backward(
        next, [&](const auto &of, const auto &saved, const auto &g_x, const auto &g_chi) {
          next.give(Update<float, GpuLoops>(of, {of.x.device()}).backward(saved, g_x, g_chi));
        });
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1})
    implement_passes<&forward, &backward>(library, "update", device);
}
