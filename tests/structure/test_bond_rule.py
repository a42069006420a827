"""One rule for bonds."""

import numpy as np
from ase.data import covalent_radii as of_ase

from so3k_md.structure.bonds import bond_radii, bonded, covalent_radii


def test_ions_are_not_bonded_to_their_shell():
    radii = bond_radii([11, 8, 1, 1, 0])
    distances = np.array([2.35, 0.96, 0.96, 0.1])
    assert bonded(radii[[0, 1, 1, 1]], radii[[1, 2, 3, 4]], distances).tolist() == [False, True, True, False]


def test_virtual_sites_have_no_radius():
    assert covalent_radii([0, 6]).tolist() == [0.0, of_ase[6]]
