/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_REFERENCES_H
#define SO3K_REFERENCES_H

#include <cstdint>
#include <string>
#include <vector>

namespace So3k {

/// Compositions whose energies can be compared, by the rule of so3k_md/data/references.py: fitted
/// element energies are valid for linear combinations of the compositions of the fit.
class References {
 public:
  /// `metadata` of a model, as JSON; without data on references all compositions are comparable.
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
