/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_KERNELS_H
#define SO3K_KERNELS_H

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

namespace So3k {

/// Register the compiled kernels of so3k_md, which a model file may call, with torch. False if
/// their library is not in the folder of the plugin. A process that already has kernels keeps
/// these. Throws std::runtime_error if the library is damaged.
bool load_kernels();

/// The form in which a model runs.
struct Choice {
  bool compiled;         // with compiled kernels, or with plain layers
  std::string reason;    // why not with kernels
};

/// The rule of so3k_md/kernels/choose.py for `auto`; `has_code` if the file brings the compiled
/// form.
Choice choose(bool has_code, at::Device device, at::ScalarType precision);

}    // namespace So3k

#endif
