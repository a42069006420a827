/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_METADATA_H
#define SO3K_METADATA_H

#include <cstdint>
#include <string>
#include <vector>

namespace So3k {

/// The text of a key of a JSON object, "" if it has none. LAMMPS has a reader of JSON only since
/// 22 Jul 2025, and this plugin needs little of the metadata.
std::string json_text(const std::string &json, const std::string &key);

/// The value of a key of a JSON object as it is written, "" where it has none.
std::string json_value(const std::string &json, const std::string &key);

/// The whole numbers of a JSON array and of those in it, in order.
std::vector<int64_t> json_integers(const std::string &json);

}    // namespace So3k

#endif
