/* so3k-md: pair_style so3k, its keywords. GPL-2, see ../LICENSE. */

#include "settings.h"

#include "error.h"
#include "utils.h"

namespace utils = LAMMPS_NS::utils;
using LAMMPS_NS::LAMMPS;

namespace So3k {

namespace {

  constexpr double SHORTEST = 2.0;    // Å of cutoff_lr, over which dispersion is switched off

  /// Reads one keyword; false if the values do not belong to it.
  class Reader {
   public:
    Reader(Settings &settings, LAMMPS *lmp) : settings(settings), lmp(lmp) {}

    /// Number of words of a keyword and its values.
    static int width(const std::string &keyword) { return keyword == "fragment_charge" ? 3 : 2; }

    bool read(const std::string &keyword, const std::string &value, const std::string &second)
    {
      return read_running(keyword, value) || read_long_range(keyword, value) ||
          read_charge_state(keyword, value, second);
    }

   private:
    bool read_running(const std::string &keyword, const std::string &value)
    {
      if (keyword == "precision" && (value == "float32" || value == "float64")) {
        settings.precision = value == "float32" ? at::kFloat : at::kDouble;
      } else if (keyword == "device" && (value == "auto" || value == "cpu" || value == "cuda")) {
        settings.device = value;
      } else if (keyword == "groups" && (value == "molecule" || value == "all")) {
        settings.groups.by_molecule = value == "molecule";
      } else if (keyword == "max_group" && utils::is_integer(value) && value[0] != '-') {
        settings.groups.max_group = utils::bnumeric(FLERR, value, true, lmp);
      } else if (keyword == "cut_bonds" && (value == "refuse" || value == "allow")) {
        settings.cut_bonds = value == "allow";
      } else {
        return false;
      }
      return true;
    }

    bool read_long_range(const std::string &keyword, const std::string &value)
    {
      auto &long_range = settings.long_range;
      if (keyword == "coulomb" &&
          (value == "kspace" || value == "shifted" || value == "shifted+self")) {
        long_range.coulomb = value;
      } else if (keyword == "cutoff_lr" && utils::is_double(value) && number(value) > SHORTEST) {
        long_range.cutoff_lr = number(value);
      } else {
        return false;
      }
      long_range.given = true;
      return true;
    }

    bool read_charge_state(const std::string &keyword, const std::string &value,
                           const std::string &second)
    {
      auto &charge_state = settings.charge_state;
      if (keyword == "charge" && utils::is_double(value)) {
        charge_state.charge = number(value);
      } else if (keyword == "spin" && utils::is_double(value)) {
        charge_state.spin = number(value);
      } else if (keyword == "fragments" && (value == "molecule" || value == "all")) {
        charge_state.by_molecule = value == "molecule";
      } else if (keyword == "fragment_charge" && utils::is_integer(value) &&
                 utils::is_double(second)) {
        charge_state.of_molecule[utils::bnumeric(FLERR, value, true, lmp)] = number(second);
      } else {
        return false;
      }
      charge_state.given = true;
      return true;
    }

    double number(const std::string &value) const
    {
      return utils::numeric(FLERR, value, true, lmp);
    }

    Settings &settings;
    LAMMPS *lmp;
  };

}    // namespace

Settings Settings::parse(int narg, char **arg, LAMMPS *lmp)
{
  Settings settings;
  Reader reader(settings, lmp);
  for (int k = 0; k < narg; k += Reader::width(arg[k])) {
    const auto word = [&](int n) -> std::string { return n < narg ? arg[n] : ""; };
    const auto keyword = word(k), value = word(k + 1);
    const auto second = Reader::width(keyword) == 3 ? word(k + 2) : "";
    if (!reader.read(keyword, value, second))
      lmp->error->all(
          FLERR,
          "pair_style so3k does not know '{}': use precision float32|float64, device "
          "auto|cpu|cuda, "
          "groups molecule|all, max_group N, coulomb kspace|shifted|shifted+self, cutoff_lr A "
          "(above {:g}), charge Q, spin S, fragments all|molecule, fragment_charge ID Q, cut_bonds "
          "refuse|allow",
          utils::trim(keyword + " " + value + " " + second), SHORTEST);
  }
  return settings;
}

}    // namespace So3k
