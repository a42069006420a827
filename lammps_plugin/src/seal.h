/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SEAL_H
#define SO3K_SEAL_H

#include <string>

namespace So3k {

/// Throws std::runtime_error unless the bytes of a file end with a correct seal, the SHA-256 of the
/// bytes before it. See so3k_md/seals.py: it detects damage, not malice.
void require_seal(const std::string &bytes);

}    // namespace So3k

#endif
