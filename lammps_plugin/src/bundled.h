/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_BUNDLED_H
#define SO3K_BUNDLED_H

#include <string>

namespace So3k {

/// The bytes of a model: of the file with this path or, if there is none, of the bundled model with
/// this name. Throws std::runtime_error with the error and the remedy.
std::string read_model(const std::string &path);

}    // namespace So3k

#endif
