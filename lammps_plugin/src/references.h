/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_REFERENCES_H
#define SO3K_REFERENCES_H

#include <cstdint>
#include <string>
#include <vector>

namespace So3k {

/// Which compositions a model can compare, by the rule of so3k_md/data/references.py: element
/// energies that were fitted hold for combinations of the compositions they were fitted to.
class References {
 public:
  /// `metadata` of a model, as JSON; models that say nothing of it are believed.
  explicit References(const std::string &metadata);

  /// Whether the energy of a composition can be compared with those of others; `counts` of atoms
  /// by atomic number.
  bool comparable(const std::vector<int64_t> &counts) const;

  /// The compositions that the element energies were fitted to.
  std::string trained() const;

 private:
  bool absolute = true;    // isolated atoms, given, or not known
  std::vector<int64_t> elements;
  std::vector<std::vector<double>> compositions;
};

/// A composition as chemists write it: C and H first. `counts` of atoms by atomic number.
std::string formula(const std::vector<int64_t> &counts);

}    // namespace So3k

#endif
