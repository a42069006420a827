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

/// Covalent radii in Å (Cordero et al., Dalton Trans. 2008, 2832), 2 Å where none is given.
constexpr std::array<double, 119> COVALENT_RADII = {
    0.00, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11,
    1.07, 1.05, 1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32,
    1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46,
    1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03,
    2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62,
    1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15,
    2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00,
    2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00};

/// Standard atomic masses in g/mol, as ase.data.atomic_masses has them.
constexpr std::array<double, 119> ATOMIC_MASSES = {
    0.000,   1.008,   4.003,   6.940,   9.012,   10.810,  12.011,  14.007,  15.999,  18.998,
    20.180,  22.990,  24.305,  26.982,  28.085,  30.974,  32.060,  35.450,  39.948,  39.098,
    40.078,  44.956,  47.867,  50.941,  51.996,  54.938,  55.845,  58.933,  58.693,  63.546,
    65.380,  69.723,  72.630,  74.922,  78.971,  79.904,  83.798,  85.468,  87.620,  88.906,
    91.224,  92.906,  95.950,  97.907,  101.070, 102.906, 106.420, 107.868, 112.414, 114.818,
    118.710, 121.760, 127.600, 126.904, 131.293, 132.905, 137.327, 138.905, 140.116, 140.908,
    144.242, 144.913, 150.360, 151.964, 157.250, 158.925, 162.500, 164.930, 167.259, 168.934,
    173.054, 174.967, 178.490, 180.948, 183.840, 186.207, 190.230, 192.217, 195.084, 196.967,
    200.592, 204.380, 207.200, 208.980, 208.982, 209.987, 222.018, 223.020, 226.025, 227.028,
    232.038, 231.036, 238.029, 237.048, 244.064, 243.061, 247.070, 247.070, 251.080, 252.083,
    257.095, 258.098, 259.101, 262.110, 267.122, 268.126, 271.134, 270.133, 269.134, 278.156,
    281.165, 281.166, 285.177, 286.182, 289.190, 289.194, 293.204, 293.208, 294.214};

/// Half of the longest bond between two such atoms, Å; 0 for metals and noble gases, whose contacts
/// change. This is the rule of so3k_md/structure/bonds.py.
inline double bond_radius(int64_t z)
{
  for (const int64_t covalent : {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53})
    if (z == covalent) return 1.25 * COVALENT_RADII.at(z);
  return 0.0;
}

/// Z of a symbol, 0 if there is no such element.
inline int64_t atomic_number(const std::string &symbol)
{
  for (size_t z = 1; z < SYMBOLS.size(); ++z)
    if (symbol == SYMBOLS[z]) return static_cast<int64_t>(z);
  return 0;
}

}    // namespace So3k

#endif
