/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_LAYERS_H
#define SO3K_LAYERS_H

#include "model.h"
#include "nonlocal.h"

namespace So3k {

/// Collective: features of each centre after all layers, differentiable in the pair vectors and,
/// for a non-local model, in the leaves of `nonlocal`.
///
/// `shares`: of the total charge and of unpaired electrons, of each row, as in the stage `embed`.
/// `nonlocal` may be null.
at::Tensor last_features(const Model &model, const PairList &near, const at::Tensor &shares,
                         int64_t n_centres, const Nonlocal *nonlocal);

}    // namespace So3k

#endif
