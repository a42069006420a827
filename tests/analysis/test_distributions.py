"""Distributions against closed forms: ideal gas, lattice, harmonic bond, free rotor."""

import mdtraj as md
import numpy as np
import pytest

from so3k_md.analysis import distributions
from so3k_md.analysis.distributions import (
    bond_length_distribution,
    dihedral_distribution,
    element_pairs,
    radial_distribution,
)
from so3k_md.analysis.geometry import widths

TRICLINIC = np.array([[16.0, 0.0, 0.0], [4.0, 15.0, 0.0], [-3.0, 2.0, 17.0]])


def ideal_gas(cell: np.ndarray, n_frames: int, n_atoms: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = cell * rng.uniform(0.9, 1.1, size=(n_frames, 1, 1))
    return rng.uniform(-1, 2, size=(n_frames, n_atoms, 3)) @ cells, cells


@pytest.mark.parametrize("cell", [np.diag([15.0, 16.0, 17.0]), TRICLINIC])
@pytest.mark.parametrize("same", [True, False])
def test_an_ideal_gas_has_g_of_one_in_a_box_that_breathes(cell: np.ndarray, same: bool) -> None:
    positions, cells = ideal_gas(cell, 30, 200)
    first = np.arange(200) if same else np.arange(50)
    second = first if same else np.arange(50, 200)
    rdf = radial_distribution(positions, cells, first, second, None, "X–X")
    assert rdf is not None
    assert rdf.pairs == (199 * 100 if same else 50 * 150)
    assert rdf.r[-1] == pytest.approx(widths(cells).min() / 2, abs=distributions.RDF_BIN)
    shell = 4 / 3 * np.pi * ((rdf.r + 0.025) ** 3 - (rdf.r - 0.025) ** 3)
    expected = rdf.pairs * shell * np.sum(1 / np.linalg.det(cells))
    deviation = (rdf.g - 1) * np.sqrt(expected)  # Poisson: unit normal in each bin
    assert np.average(rdf.g, weights=shell) == pytest.approx(1, abs=0.01)
    assert np.sqrt(np.mean(deviation[20:] ** 2)) == pytest.approx(1, abs=0.25)


def test_pairs_inside_a_molecule_are_left_out_without_bias() -> None:
    centres, cells = ideal_gas(np.diag([15.0, 15.0, 15.0]), 30, 100)
    rng = np.random.default_rng(5)
    bonds = rng.normal(size=centres.shape)
    positions = np.concatenate(
        [centres, centres + bonds / np.linalg.norm(bonds, axis=-1, keepdims=True)], axis=1
    )
    molecules, atoms = np.tile(np.arange(100), 2), np.arange(200)
    apart = radial_distribution(positions, cells, atoms, atoms, molecules, "X–X")
    everything = radial_distribution(positions, cells, atoms, atoms, None, "X–X")
    assert apart is not None
    assert everything is not None
    assert apart.pairs == 199 * 100 - 100
    assert np.average(apart.g, weights=apart.r**2) == pytest.approx(1, abs=0.01)
    assert everything.g[20] > 5  # the bond of 1 Å
    assert everything.peak_r == pytest.approx(1.0, abs=0.05)


def test_neighbors_on_a_lattice() -> None:
    """Simple cubic: 6 at a, 12 at sqrt(2) a, 8 at sqrt(3) a."""
    a = 3.03
    places = a * np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(1, -1, 3)
    cell = np.diag([5 * a] * 3)[None]
    atoms = np.arange(125)
    rdf = radial_distribution(places, cell, atoms, atoms, None, "X–X")
    assert rdf is not None
    shell = 4 / 3 * np.pi * ((rdf.r + 0.025) ** 3 - (rdf.r - 0.025) ** 3)
    counts = rdf.g * shell * 124 / (5 * a) ** 3
    for distance, number in ((a, 6), (np.sqrt(2) * a, 12), (np.sqrt(3) * a, 8)):
        assert counts[abs(rdf.r - distance) < 0.1].sum() == pytest.approx(number)


@pytest.mark.parametrize("cell", [np.diag([15.0, 16.0, 17.0]), TRICLINIC])
def test_g_is_mdtrajs(cell: np.ndarray) -> None:
    positions, _ = ideal_gas(cell, 10, 80)
    cells = np.repeat(cell[None], 10, axis=0)
    topology = md.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(80):
        topology.add_atom("C", md.element.carbon, residue)
    trajectory = md.Trajectory(positions / 10, topology)
    trajectory.unitcell_vectors = cells / 10
    rdf = radial_distribution(positions, cells, np.arange(80), np.arange(80), None, "X–X")
    assert rdf is not None
    pairs = np.array(np.triu_indices(80, 1)).T
    theirs_r, theirs = md.compute_rdf(trajectory, pairs, r_range=(0, 0.7), bin_width=0.005)
    assert theirs_r * 10 == pytest.approx(rdf.r[:140], abs=1e-5)
    assert rdf.g[40:140] == pytest.approx(theirs[40:], rel=0.05)  # a pair at an edge may change its bin


def test_g_of_a_large_system_uses_frames_spread_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "PAIR_BUDGET", 5 * 190)
    positions, cells = ideal_gas(np.diag([15.0, 16.0, 17.0]), 30, 20)
    rdf = radial_distribution(positions, cells, np.arange(20), np.arange(20), None, "X–X")
    assert rdf is not None
    assert rdf.frames == 5


def test_one_atom_has_no_pair() -> None:
    positions, cells = ideal_gas(np.diag([15.0, 16.0, 17.0]), 3, 1)
    assert radial_distribution(positions, cells, np.arange(1), np.arange(1), None, "X–X") is None


def test_a_harmonic_bond_is_normal() -> None:
    """At temperature T a stiff spring k has the spread sqrt(k_B T / k)."""
    rng = np.random.default_rng(2)
    spread = np.sqrt(8.617333e-5 * 300 / 30.0)  # k = 30 eV/Å^2
    found = bond_length_distribution("C–H", rng.normal(1.1, spread, size=(20000, 2)))
    assert found.mean == pytest.approx(1.1, abs=5 * spread / np.sqrt(40000))
    assert found.std == pytest.approx(spread, rel=0.02)
    normal = np.exp(-0.5 * ((found.centres - 1.1) / spread) ** 2) / spread / np.sqrt(2 * np.pi)
    assert found.density == pytest.approx(normal, abs=0.04 * normal.max())
    assert found.density.sum() * distributions.BOND_BIN == pytest.approx(1)


def test_a_bond_of_fixed_length_and_one_that_flew_away() -> None:
    fixed = bond_length_distribution("O–H", np.full((10, 1), 0.96))
    assert fixed.std == pytest.approx(0, abs=1e-12)
    assert fixed.density.max() == pytest.approx(1 / distributions.BOND_BIN)
    flown = bond_length_distribution("O–H", np.array([[1.0], [1e6]]))
    assert flown.maximum == 1e6
    assert len(flown.density) < 5
    assert flown.density.sum() * distributions.BOND_BIN == pytest.approx(0.5)


def test_a_free_rotor_is_flat_and_a_locked_one_is_not() -> None:
    angles = np.radians(np.arange(-180, 180, 0.5) + 0.25)
    chain = np.zeros((len(angles), 4, 3))
    chain[:, 0, 0], chain[:, 2:, 2] = 1, 1
    chain[:, 3, 0], chain[:, 3, 1] = np.cos(angles), np.sin(angles)
    quad = np.array([[0, 1, 2, 3]])
    free = dihedral_distribution("H–C–C–H", chain, quad, None, (False, False, False))
    assert free.density == pytest.approx(1 / 360, rel=1e-9)
    locked = dihedral_distribution("H–C–C–H", chain[:1].repeat(4, axis=0), quad, None, (False, False, False))
    assert locked.centres[locked.density.argmax()] == pytest.approx(-177.5)
    assert locked.density.sum() * distributions.DIHEDRAL_BIN == pytest.approx(1)


def test_element_pairs_put_hydrogen_last() -> None:
    assert [name for name, *_ in element_pairs(["H", "O", "C"])] == ["C–C", "C–O", "C–H", "O–O", "O–H", "H–H"]
