/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SEAL_H
#define SO3K_SEAL_H

#include <string>

namespace So3k {

/// Throws std::runtime_error unless the bytes of a file end with a seal, the SHA-256 of those
/// before it, and this is right. See so3k_md/seals.py: against damage, not against malice.
void require_seal(const std::string &bytes);

}    // namespace So3k

#endif
