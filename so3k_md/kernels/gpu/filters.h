/* so3k-md: the filters of an operator's arguments. MIT. */

#ifndef SO3K_GPU_FILTERS_H
#define SO3K_GPU_FILTERS_H

#include "attention.h"

namespace So3k {

/// Of the arguments of `attend` or `sphc_attend`; tables for GPUs have one row more than intervals.
template <typename Call> Filters filters_of(const Call &of)
{
  Filters filters{};
  filters.out = of.out.const_data_ptr();
  filters.out_transposed = of.out_transposed.const_data_ptr();
  filters.hidden = of.hidden.template const_data_ptr<float>();
  filters.hidden_bias = of.hidden_bias.template const_data_ptr<float>();
  filters.table = of.table.template const_data_ptr<float>();
  filters.intervals = of.table.size(0) - 1;
  filters.width = static_cast<float>(of.cutoff / filters.intervals);
  filters.floor = static_cast<float>(of.norm_eps * of.norm_eps + 1e-30);
  filters.eps = static_cast<float>(of.norm_eps);
  return filters;
}

}    // namespace So3k

#endif
