"""One rule for bonds."""

import numpy as np
from ase.data import covalent_radii as of_ase

from so3k_md.structure.bonds import bond_radii, bonded, covalent_radii, guess_bonds


def test_ions_are_not_bonded_to_their_shell():
    radii = bond_radii([11, 8, 1, 1, 0])
    distances = np.array([2.35, 0.96, 0.96, 0.1])
    assert bonded(radii[[0, 1, 1, 1]], radii[[1, 2, 3, 4]], distances).tolist() == [False, True, True, False]


def test_virtual_sites_have_no_radius():
    assert covalent_radii([0, 6]).tolist() == [0.0, of_ase[6]]


def polymer(n_units: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """A zigzag of carbons along x, closed over the wall of a box of this length, Å, and a water."""
    x = np.arange(n_units) * length / n_units
    chain = np.stack([x, 0.4 * (-1.0) ** np.arange(n_units), np.zeros(n_units)], axis=1)
    water = np.array([[1.0, 5.0, 5.0], [1.96, 5.0, 5.0], [0.76, 5.93, 5.0]])
    return np.array([6] * n_units + [8, 1, 1]), np.concatenate([chain, water])


def test_what_goes_on_through_the_walls_is_a_network_and_no_molecule():
    length = 6 * 1.3
    numbers, positions = polymer(6, length)
    cell, rng = np.diag([length, 10.0, 10.0]), np.random.default_rng(0)
    for places in (positions, positions + rng.integers(-3, 4, positions.shape) @ cell):
        guess = guess_bonds(numbers, places, cell, True)
        assert guess.molecule.tolist() == [0] * 6 + [1] * 3
        assert guess.network.tolist() == [True] * 6 + [False] * 3
        assert guess.of_molecules.tolist() == [[6, 7], [6, 8]]
        assert len(guess.bonds) == 8
    opened = guess_bonds(numbers, positions, cell, [False, True, True])
    assert not opened.network.any()
    assert len(opened.of_molecules) == 7


def test_an_atom_bonded_to_its_own_image_is_a_network():
    guess = guess_bonds([6], [[0.0, 0.0, 0.0]], np.diag([1.5, 9.0, 9.0]), True)
    assert guess.network.tolist() == [True]
    assert guess.bonds.shape == guess.of_molecules.shape == (0, 2)
