"""The bond graph of molecules that one can count by hand."""

import numpy as np
import pytest
import torch

from so3k_md.analysis.bonds import by_type, composition, formula, make_whole
from so3k_md.analysis.torsions import torsion_kinds, torsions
from so3k_md.structure.bonds import guess_bonds, trees
from so3k_md.structure.images import unwrap
from so3k_md.structure.pairs import full_rank

ETHANOL = np.array([6, 8, 1, 1, 1, 6, 1, 1, 1])
SYMBOLS = ("C", "O", "H", "H", "H", "C", "H", "H", "H")
BONDS = np.array([[0, 5], [0, 1], [0, 3], [0, 4], [1, 2], [5, 6], [5, 7], [5, 8]])
PLACES = np.array(
    [[0.01, -0.57, 0.0], [1.3, 0.05, 0.0], [1.25, 1.0, 0.1], [-0.05, -1.2, 0.88], [-0.05, -1.2, -0.88]]
    + [[-1.15, 0.38, 0.0], [-1.1, 1.0, 0.88], [-1.1, 1.0, -0.88], [-2.1, -0.15, 0.0]]
)


def test_bonds_of_ethanol_are_guessed() -> None:
    assert {tuple(bond) for bond in guess_bonds(ETHANOL, PLACES).bonds.tolist()} == {
        tuple(b) for b in BONDS.tolist()
    }


def test_bonds_are_guessed_across_the_boundary() -> None:
    cell = np.diag([6.0, 6, 6])
    wrapped = (PLACES + 0.3) % 6
    assert len(guess_bonds(ETHANOL, wrapped).bonds) < len(BONDS)
    assert len(guess_bonds(ETHANOL, wrapped, cell, True).bonds) == len(BONDS)


@pytest.mark.parametrize("number", [18, 13, 79, 11])
def test_metals_ions_and_noble_gases_have_no_bonds(number: int) -> None:
    places = 2.5 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
    assert guess_bonds(np.full(27, number), places).bonds.shape == (0, 2)


def test_torsions_of_ethanol() -> None:
    """Nine about C–C and three about C–O."""
    groups = torsion_kinds(torsions(BONDS), BONDS, SYMBOLS, SYMBOLS, np.zeros(9, dtype=int))
    assert {name: len(group) for name, group in groups.items()} == {
        "H–C–C–H": 6,
        "O–C–C–H": 3,
        "H–C–O–H": 2,
        "C–C–O–H": 1,
    }


def test_a_three_ring_has_no_torsion_that_meets_itself() -> None:
    assert len(torsions(np.array([[0, 1], [1, 2], [0, 2]]))) == 0


def test_bond_types_are_named_from_the_heavier_end() -> None:
    groups = by_type(BONDS[:, ::-1], SYMBOLS)
    assert {name: len(group) for name, group in groups.items()} == {"C–H": 5, "C–C": 1, "C–O": 1, "O–H": 1}


def test_each_molecule_is_one_tree() -> None:
    bonds = np.concatenate([BONDS, BONDS + 9])
    parent, molecules = trees(19, bonds)
    assert molecules.tolist() == [0] * 9 + [1] * 9 + [2]
    assert np.flatnonzero(parent == np.arange(19)).tolist() == [0, 9, 18]
    links = {tuple(sorted((atom, before))) for atom, before in enumerate(parent.tolist()) if atom != before}
    assert links == {tuple(sorted(bond)) for bond in bonds.tolist()}
    assert composition((*SYMBOLS, *SYMBOLS, "Ar"), molecules) == "2 × C2H6O, Ar"


def test_formula_in_hills_order() -> None:
    assert formula(["O", "H", "C", "C", "H"]) == "C2H2O"
    assert formula(["O", "H", "H"]) == "H2O"


def test_torsions_of_the_same_elements_are_told_apart() -> None:
    """φ and ω of a peptide by names; without names by what the atoms are bonded to."""
    symbols = ("C", "O", "N", "C", "C", "O", "N", "H", "H", "H")
    bonds = np.array([[0, 1], [0, 2], [2, 3], [3, 4], [4, 5], [4, 6], [2, 7], [3, 8], [3, 9]])
    names = ("C", "O", "N", "CA", "C", "O", "N", "H", "HA2", "HA3")
    residues = np.array([0, 0, 1, 1, 1, 1, 2, 1, 1, 1])
    named = torsion_kinds(torsions(bonds), bonds, symbols, names, residues)
    assert named["φ"].tolist() == [[0, 2, 3, 4]]
    assert named["ψ"].tolist() == [[2, 3, 4, 6]]
    peptide = np.array([[0, 1], [1, 2], [1, 3], [3, 4], [4, 5], [5, 6]])
    elements = ("C", "C", "O", "N", "C", "C", "O")
    kinds = torsion_kinds(torsions(peptide), peptide, elements, elements, np.zeros(7, dtype=int))
    same = [
        kind
        for kind, quads in kinds.items()
        if {tuple(quad) for quad in quads.tolist()} & {(0, 1, 3, 4), (1, 3, 4, 5)}
    ]
    assert len(same) == 2


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_frames_become_whole_as_one_structure_does(pbc: tuple[bool, bool, bool]) -> None:
    rng, cell = np.random.default_rng(5), np.array([[9.0, 0.0, 0.0], [2.0, 8.0, 0.0], [-1.0, 1.5, 10.0]])
    cells = cell * (1 + 0.02 * np.arange(3))[:, None, None]
    torn = PLACES + rng.integers(-2, 3, (3, 9, 3)) * np.array(pbc) @ cells
    parent, _ = trees(9, BONDS)
    whole = make_whole(torn, cells, pbc, parent)
    for frame, of_cell, found in zip(torn, cells, whole, strict=True):
        arrays = frame, *full_rank(of_cell, pbc), parent
        expected = unwrap(*(torch.from_numpy(array) for array in arrays)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-11)
        np.testing.assert_allclose(found - found[0], PLACES - PLACES[0], atol=1e-11)
