"""Units: so3k-md uses eV, Å, fs and amu; these are the factors to units of other codes."""

EV_IN_KJ_MOL = 96.48533212331002  # e N_A / 1000, exact in the SI of 2019
NM_IN_ANGSTROM = 10.0
BOLTZMANN_EV_K = 8.617333262145179e-5  # k / e, exact in the SI of 2019
KJ_IN_KCAL = 4.184
