"""Cells that cannot be those of their atoms, and cells that look odd and are right."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from so3k_md.errors import So3kError
from so3k_md.structure.cells import cell_fault, check_cell, is_dummy, overlap_through_walls

ETHANOL = molecule("CH3CH2OH")


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        (np.eye(3), "PDB files contain if there is no cell"),
        (2.0 * np.eye(3), "for each of its 9 atoms"),
        (np.diag([14.0, 12.0, 0.5]), "repeats after 0.50"),
    ],
)
def test_cells_that_are_none(cell, word):
    assert word in cell_fault(ETHANOL.numbers, cell, True)
    with pytest.raises(So3kError, match=f"the cell of here .*{word}.*: do that"):
        check_cell(ETHANOL.numbers, cell, True, "here", "do that")


def test_a_cell_may_be_dense_in_atoms_and_not_in_mass_or_the_other_way_round():
    assert "g/cm³" in cell_fault([79] * 4, 3.0 * np.eye(3), True)
    assert cell_fault([1] * 20, 3.0 * np.eye(3), True) is None


@pytest.mark.parametrize("name", ["Os", "C", "Li", "Cu"])
def test_crystals_are_cells(name):
    crystal = bulk(name)
    assert cell_fault(crystal.numbers, crystal.cell.array, True) is None
    small = 0.85 * crystal.cell.array if name == "C" else crystal.cell.array
    assert overlap_through_walls(crystal.numbers, crystal.positions, small, True) is None


def test_open_axes_have_no_cell():
    thin = np.diag([14.0, 12.0, 0.5])
    assert cell_fault(ETHANOL.numbers, thin, [True, True, False]) is None
    assert cell_fault(ETHANOL.numbers, np.eye(3), False) is None
    assert cell_fault([0, 0], np.eye(3), True) is None


def test_only_the_cube_of_one_angstrom_is_the_dummy():
    assert is_dummy(np.eye(3))
    assert not is_dummy(1.01 * np.eye(3))
    assert not is_dummy(None)


def test_a_default_box_shows_by_molecules_that_meet_through_its_walls():
    two = ETHANOL + ETHANOL
    two.positions[9:] += [20.0, 0.0, 0.0]
    found = overlap_through_walls(two.numbers, two.positions, 20.0 * np.eye(3), True)
    assert found is not None
    assert found.second == found.first + 9
    assert found.distance < 1e-6
    wide = overlap_through_walls(two.numbers, two.positions, 30.0 * np.eye(3), True)
    assert wide is None


def test_molecules_broken_over_a_wall_do_not_overlap():
    broken = ETHANOL.copy()
    broken.cell, broken.pbc = 6.0 * np.eye(3), True
    broken.wrap()
    assert overlap_through_walls(broken.numbers, broken.positions, broken.cell, True) is None


def test_atoms_on_one_spot_are_no_fault_of_the_cell():
    spot = Atoms("O2", np.zeros((2, 3)))
    assert overlap_through_walls(spot.numbers, spot.positions, 10 * np.eye(3), True) is None
