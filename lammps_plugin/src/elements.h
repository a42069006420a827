/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_ELEMENTS_H
#define SO3K_ELEMENTS_H

#include <array>
#include <cstdint>
#include <string>

namespace So3k {

constexpr std::array<const char *, 119> SYMBOLS = {
    "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si",
    "P",  "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu",
    "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru",
    "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",
    "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac",
    "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf",
    "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

/// Z of a symbol, 0 if there is no such element.
inline int64_t atomic_number(const std::string &symbol)
{
  for (size_t z = 1; z < SYMBOLS.size(); ++z)
    if (symbol == SYMBOLS[z]) return static_cast<int64_t>(z);
  return 0;
}

}    // namespace So3k

#endif
