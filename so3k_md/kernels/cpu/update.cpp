/* so3k-md: the exchange between features and SPHCs of each atom on a CPU. MIT. */

#include "update.h"

#include <vector>

#include "differentiable.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t LEAST_ATOMS = 256;    // for which another thread pays

  /// Loops over atoms by the threads of torch.
  struct CpuLoops {
    template <auto member, typename Of> void degrees(const Of &of) const
    {
      each<member>(of, of.shape.degrees);
    }
    template <auto member, typename Of> void features(const Of &of) const
    {
      each<member>(of, of.shape.features);
    }

   private:
    template <auto member, typename Of> static void each(const Of &of, int count)
    {
      in_ranges(of.rows, LEAST_ATOMS, [&](int64_t first, int64_t last) {
        const Of own = of;    // not in the memory to which the loop writes
        for (auto n = first; n < last; ++n)
          for (int k = 0; k < count; ++k) (own.*member)(n, k);
      });
    }
  };

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const UpdateArguments of(next);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::update_forward",
                               [&] { next.give(Update<scalar_t, CpuLoops>(of, {}).forward()); });
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    update_backward(next,
                    [&](const auto &of, const auto &saved, const auto &g_x, const auto &g_chi) {
                      AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::update_backward", [&] {
                        next.give(Update<scalar_t, CpuLoops>(of, {}).backward(saved, g_x, g_chi));
                      });
                    });
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const UpdateArguments of(next);
    const auto n = of.x.size(0);
    const auto some = [&](bool there, std::vector<int64_t> shape) {
      return at::empty(there ? shape : std::vector<int64_t>{0}, of.x.options());
    };
    const auto x = of.x.sizes().vec(), chi = of.chi.sizes().vec();
    next.give({at::empty_like(of.x), at::empty_like(of.chi), some(of.has_norms(), {n, 1}),
               some(of.has_norms(), {n, 1}), some(of.has_norms(), x), some(of.has_mlp(), x),
               some(of.has_chi_norm(), chi), some(true, {n, of.linear.size(1)}),
               some(of.mixes(), chi), some(of.mixes(), x), some(of.has_norms(), x),
               some(of.has_norms(), {n, 1}), some(of.has_norms(), {n, 1})});
  }

  void backward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    for (int k = 0; k < 2; ++k) next.optional();
    for (int k = 0; k < UpdateSaved::COUNT; ++k) next.tensor();
    const UpdateArguments of(next);
    next.give({at::empty_like(of.x), at::empty_like(of.chi)});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::UPDATE, UpdateSaved::COUNT, 2);
  implement_passes<&forward, &backward>(library, "update", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward_shapes>(library, "update", c10::DispatchKey::Meta);
}
