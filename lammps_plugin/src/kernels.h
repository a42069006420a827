/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_KERNELS_H
#define SO3K_KERNELS_H

namespace So3k {

/// Register the compiled kernels of so3k_md, which a model file may call, with torch. False if
/// their library is not in the folder of the plugin. A process that already has kernels keeps
/// these. Throws std::runtime_error if the library is damaged.
bool load_kernels();

}    // namespace So3k

#endif
