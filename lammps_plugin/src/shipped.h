/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SHIPPED_H
#define SO3K_SHIPPED_H

#include <string>

namespace So3k {

/// The bytes of a model: of the file of this path or, where there is none, of the model of this
/// name that comes with so3k-md. Throws std::runtime_error, which says what is wrong and what to
/// do.
std::string read_model(const std::string &path);

}    // namespace So3k

#endif
