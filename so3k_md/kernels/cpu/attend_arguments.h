/* so3k-md: the arguments of `attend`. MIT. */

#ifndef SO3K_ATTEND_ARGUMENTS_H
#define SO3K_ATTEND_ARGUMENTS_H

#include <vector>

#include "arguments.h"

namespace So3k {

/// The arguments, in the order of the schema. The layout of the weights is that of the device:
/// NearWeights in kernels/layer.py for CPUs, in kernels/gpu_layer.py for GPUs.
struct AttendArguments {
  at::Tensor x, chi, x_src, chi_src, r, cut, ylm;    // with derivatives
  at::Tensor idx_i, idx_j, back;
  at::Tensor query, query_bias, key, key_bias, value, value_bias, transposed;
  at::Tensor hidden, hidden_bias, out, out_transposed, table;    // of the filters
  double cutoff, norm_eps;
  int64_t heads;
  std::vector<int64_t> degrees;
  bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖

  explicit AttendArguments(Arguments &next) :
      x(next.tensor()), chi(next.tensor()), x_src(next.tensor()), chi_src(next.tensor()),
      r(next.tensor()), cut(next.tensor()), ylm(next.tensor()), idx_i(next.tensor()),
      idx_j(next.tensor()), back(next.tensor()), query(next.tensor()), query_bias(next.tensor()),
      key(next.tensor()), key_bias(next.tensor()), value(next.tensor()), value_bias(next.tensor()),
      transposed(next.tensor()), hidden(next.tensor()), hidden_bias(next.tensor()),
      out(next.tensor()), out_transposed(next.tensor()), table(next.tensor()),
      cutoff(next.number()), norm_eps(next.number()), heads(next.integer()),
      degrees(next.integers()), squared(next.flag())
  {
    require_precision(x.scalar_type());
  }

  int64_t width() const { return x.size(1); }
  int64_t wide() const { return width() / heads; }
  int64_t narrow() const { return width() / n_degrees(); }
  int64_t n_degrees() const { return static_cast<int64_t>(degrees.size()); }
};

/// Queries of the centres, keys and values of the sources.
struct AttendRows {
  at::Tensor q, k, v;
};

inline AttendRows empty_rows(const AttendArguments &of)
{
  const auto n = of.x.size(0), m = of.x_src.size(0);
  return {at::empty({n, of.query_bias.size(0)}, of.x.options()),
          at::empty({m, of.key_bias.size(0)}, of.x.options()),
          at::empty({m, of.value_bias.size(0)}, of.x.options())};
}

/// Derivatives by the first arguments.
struct AttendGradients {
  at::Tensor x, chi, x_src, chi_src, r, cut, ylm;

  std::vector<at::Tensor> list() const { return {x, chi, x_src, chi_src, r, cut, ylm}; }
};

}    // namespace So3k

#endif
