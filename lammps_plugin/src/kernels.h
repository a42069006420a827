/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_KERNELS_H
#define SO3K_KERNELS_H

namespace So3k {

/// Make the compiled kernels of so3k_md known to torch, which a model file may call. False where
/// their library does not lie beside the plugin; a process that has them already keeps its own.
/// Throws std::runtime_error if that library is damaged.
bool load_kernels();

}    // namespace So3k

#endif
