"""Distances, dihedrals and superposition against closed forms and mdtraj."""

import itertools

import mdtraj as md
import numpy as np
import pytest

from so3k_md.analysis.geometry import (
    dihedral_angles,
    minimum_image,
    pair_distances,
    rmsd,
    rmsf,
    superpose,
    widths,
)

TRICLINIC = np.array([[10.0, 0.0, 0.0], [4.0, 9.0, 0.0], [-3.0, 2.0, 8.0]])
ALL = (True, True, True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q))


def bare_trajectory(positions: np.ndarray) -> md.Trajectory:
    topology = md.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(positions.shape[1]):
        topology.add_atom("C", md.element.carbon, residue)
    return md.Trajectory(positions / 10, topology)


def test_a_rotated_and_moved_copy_deviates_by_zero(rng: np.random.Generator) -> None:
    reference = rng.normal(size=(12, 3))
    copies = np.stack([reference @ rotation(rng) + rng.normal(size=3) for _ in range(5)])
    assert rmsd(copies, reference) == pytest.approx(0, abs=1e-12)


def test_a_mirror_image_is_not_superposed(rng: np.random.Generator) -> None:
    reference = rng.normal(size=(12, 3))
    assert rmsd(-reference[None], reference)[0] > 0.5


def test_planar_and_linear_molecules_are_superposed(rng: np.random.Generator) -> None:
    for shape in ([1, 1, 0], [1, 0, 0]):
        reference = rng.normal(size=(6, 3)) * shape
        assert rmsd((reference @ rotation(rng))[None], reference)[0] == pytest.approx(0, abs=1e-7)


def test_rmsd_is_mdtrajs(rng: np.random.Generator) -> None:
    positions = rng.normal(size=(8, 20, 3))
    theirs = md.rmsd(bare_trajectory(positions), bare_trajectory(positions[:1])) * 10
    assert rmsd(positions, positions[0]) == pytest.approx(theirs, abs=1e-3)


def test_one_displaced_atom_gives_the_rmsd_of_its_displacement() -> None:
    """Far from the others' axis nothing is won by rotating: sqrt(d^2 (n - 1) / n^2) after centring."""
    reference = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    moved = reference.copy()
    moved[0, 0] += 0.3
    assert rmsd(moved[None], reference)[0] == pytest.approx(0.3 * np.sqrt(5) / 6, abs=1e-12)


def test_rmsf_of_isotropic_noise(rng: np.random.Generator) -> None:
    noise = 0.05
    frames = 5 * rng.normal(size=(60, 3)) + rng.normal(scale=noise, size=(2000, 60, 3))
    turned = np.stack([frame @ rotation(rng) for frame in frames])
    lost_to_fit = 1 - 6 / (3 * 60)  # six degrees of freedom of 180 are fitted away
    assert np.mean(rmsf(turned) ** 2) == pytest.approx(3 * noise**2 * lost_to_fit, rel=0.01)


def test_superposition_leaves_the_reference_in_place(rng: np.random.Generator) -> None:
    reference = rng.normal(size=(4, 3)) + 3
    assert superpose(reference[None] + 1, reference)[0] == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 120, 179, -45, -120])
def test_dihedral_of_a_known_chain(degrees: float) -> None:
    angle = np.radians(degrees)
    chain = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(angle), np.sin(angle), 1]])
    assert dihedral_angles(chain[None], np.array([[0, 1, 2, 3]]))[0, 0] == pytest.approx(degrees)


def test_trans_is_180() -> None:
    chain = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [-1, 0, 1]])
    assert abs(dihedral_angles(chain[None], np.array([[0, 1, 2, 3]]))[0, 0]) == pytest.approx(180)


def test_dihedrals_are_mdtrajs(rng: np.random.Generator) -> None:
    positions = rng.normal(size=(10, 8, 3))
    quads = np.array([[0, 1, 2, 3], [7, 3, 1, 5], [2, 4, 6, 0]])
    theirs = np.degrees(md.compute_dihedrals(bare_trajectory(positions), quads))
    assert dihedral_angles(positions, quads) == pytest.approx(theirs, abs=2e-2)


def test_widths_of_a_prism() -> None:
    box = np.diag([3.0, 4.0, 5.0])
    assert widths(box[None])[0] == pytest.approx([3, 4, 5])
    # V / |b x c| and so on, by hand for the triclinic cell
    a, b, c = TRICLINIC
    volume = 10 * 9 * 8
    expected = [volume / np.linalg.norm(np.cross(u, v)) for u, v in ((b, c), (c, a), (a, b))]
    assert widths(TRICLINIC[None])[0] == pytest.approx(expected)


@pytest.mark.parametrize("pbc", [ALL, (True, True, False), (False, False, True), (False, False, False)])
def test_minimum_image_is_the_shortest_of_all_images(
    rng: np.random.Generator, pbc: tuple[bool, bool, bool]
) -> None:
    vectors = rng.uniform(-30, 30, size=(1, 300, 3))
    found = minimum_image(vectors, TRICLINIC[None], pbc)[0]
    shifts = np.array(list(itertools.product(*(range(-8, 9) if on else [0] for on in pbc))))
    images = vectors[0][:, None] + shifts @ TRICLINIC
    shortest = np.linalg.norm(images, axis=-1).min(axis=1)
    near = shortest < widths(TRICLINIC[None]).min() / 2
    assert near.sum() > 5 or pbc != ALL
    assert np.linalg.norm(found, axis=-1)[near] == pytest.approx(shortest[near])


def test_distance_across_the_boundary() -> None:
    positions = np.array([[[0.5, 0, 0], [9.5, 0, 0]]])
    cell = np.diag([10.0, 10, 10])[None]
    assert pair_distances(positions, np.array([[0, 1]]))[0, 0] == pytest.approx(9)
    assert pair_distances(positions, np.array([[0, 1]]), cell, ALL)[0, 0] == pytest.approx(1)
