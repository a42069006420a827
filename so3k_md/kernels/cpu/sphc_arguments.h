/* so3k-md: the arguments of `sphc_attend`. MIT. */

#ifndef SO3K_SPHC_ARGUMENTS_H
#define SO3K_SPHC_ARGUMENTS_H

#include <vector>

#include "arguments.h"

namespace So3k {

/// The arguments, in the order of the schema.
struct SphcArguments {
  at::Tensor query, key, chi, chi_src, r, r_src;    // with derivatives
  at::Tensor members, first, size, own;             // of the groups, see nn/sphc.py
  at::Tensor hidden, hidden_bias, out, out_transposed, shift, table;    // of the filters
  std::vector<at::Tensor> steps;                                        // of the harmonics
  double cutoff, norm_eps, temperature, kappa, direction;
  std::vector<int64_t> degrees;
  int64_t p;
  bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖

  explicit SphcArguments(Arguments &next) :
      query(next.tensor()), key(next.tensor()), chi(next.tensor()), chi_src(next.tensor()),
      r(next.tensor(at::kDouble)), r_src(next.tensor(at::kDouble)), members(next.tensor()),
      first(next.tensor()), size(next.tensor()), own(next.tensor()), hidden(next.tensor()),
      hidden_bias(next.tensor()), out(next.tensor()), out_transposed(next.tensor()),
      shift(next.tensor()), table(next.tensor()), steps(next.tensors()), cutoff(next.number()),
      norm_eps(next.number()), temperature(next.number()), kappa(next.number()),
      direction(next.number()), degrees(next.integers()), p(next.integer()), squared(next.flag())
  {
    require_precision(query.scalar_type());
  }

  int64_t n_degrees() const { return static_cast<int64_t>(degrees.size()); }
};

/// Derivatives by the first arguments.
struct SphcGradients {
  at::Tensor query, key, chi, chi_src, r, r_src;

  std::vector<at::Tensor> list() const { return {query, key, chi, chi_src, r, r_src}; }
};

}    // namespace So3k

#endif
