"""Attention beyond the cutoff in LAMMPS is that of PyTorch, wherever the atoms of a molecule live."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps_runs import SINGLE_POINT, lammps_frame, read_single_point, run, setup, write_data
from toys import loud, mixture, nonlocal_toy, pytorch, rattled

from so3k_md.export.torchscript import archive, script
from so3k_md.model import So3krates

RANKS = (1, 2, 3, 4)
KINDS = ("sphc", "efa", "reciprocal")
MODELS = (*KINDS, "efa-zeros")
VOIGT = ([0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1])
CASES = [
    ("sphc", "ions"),
    ("efa", "ions"),
    ("reciprocal", "ions"),
    ("sphc", "corner"),
    ("sphc", "open"),
    ("sphc", "chain"),
    ("sphc", "cluster"),
    ("efa", "cluster"),
    ("reciprocal", "cluster"),
    ("efa-zeros", "cluster"),
]


@functools.cache
def nonlocal_model(name: str) -> So3krates:
    """One of the non-local toy models, or the one whose SPHCs start as zeros, as in 2024."""
    if name != "efa-zeros":
        return nonlocal_toy(name)
    config = replace(
        nonlocal_toy("efa").config, chi_start="zeros", chi_invariant="squared", interaction="linear"
    )
    return loud(So3krates(config, elements=[1, 6, 8], seed=6))


def some(positions, seed: int) -> Atoms:
    """Atoms of any element at the given places, in one piece."""
    symbols = np.random.default_rng(seed).choice(["H", "C", "O"], len(positions))
    return Atoms(symbols, positions=positions)


@functools.cache
def nonlocal_structure(name: str) -> tuple[Atoms, np.ndarray]:
    """A structure whose molecules are whole, and the number of each atom's molecule."""
    atoms, molecules = mixture("triclinic" if name == "ions" else "open")
    molecules = molecules + 1
    if name == "ions":  # molecules across the boundary, two atoms without a molecule
        atoms += some([[3, 3, 3], [5, 4, 8]], 1)
        atoms.positions += [4.3, -3.2, 6.1]
        molecules = np.append(molecules, [0, 0])
    elif name == "corner":  # all but some ranks own nothing
        atoms.set_cell(np.eye(3) * 60)
        atoms.pbc = True
    elif name == "chain":  # longer than the box, with small molecules around it
        k = np.arange(30)[:, None]
        atoms = some(k * [1.25, 0.24, 0] + (k % 2) * [0, 0.6, 0] + [3, 9.7, 9.8], 2)
        atoms += some(k[:4] * [1.2, 0.2, 0.4] + [5, 4.5, 5], 3)
        atoms += some(k[:2] * [0, 1, 0] + [1, 4, 3], 4)
        atoms.set_cell([16, 12, 10])
        atoms.pbc = True
        atoms, molecules = rattled(atoms), np.repeat([1_000_000, 3, 7], [30, 4, 2])
    elif name == "cluster":  # more than one tile of pairs, sums over several ranks
        atoms = some(1.5 * np.array(list(np.ndindex(7, 7, 6))) + [5, 4, 13], 5)
        atoms += some([[2, 2, 8.6], [2.4, 2.2, 9.5], [14, 3, 5]], 6)
        atoms.set_cell([17, 16, 18])
        atoms.pbc = True
        atoms, molecules = rattled(atoms), np.repeat([5, 6, 0], [294, 2, 1])
    return lammps_frame(atoms), molecules


def expected(kind: str, name: str):
    """What PyTorch says; atoms of molecule 0 are alone."""
    atoms, molecules = nonlocal_structure(name)
    alone = np.where(molecules == 0, -1 - np.arange(len(molecules)), molecules)
    return pytorch(atoms, nonlocal_model(kind), group=alone)


@pytest.fixture(scope="session")
def nonlocal_folder(tmp_path_factory):
    """Models and data files."""
    folder = tmp_path_factory.mktemp("lammps-nonlocal")
    for name in MODELS:
        (folder / f"{name}.pt").write_bytes(archive(script(nonlocal_model(name))))
    for name in {name for _, name in CASES}:
        atoms, molecules = nonlocal_structure(name)
        write_data(folder / f"data.{name}", atoms, molecules=molecules)
    return folder


def single_point(kind: str, name: str, style="so3k precision float64 device cpu", label="") -> str:
    """The commands that compute one structure, after which comes another one."""
    before = "atom_style molecular\n"
    commands = setup(nonlocal_structure(name)[0], f"../data.{name}", f"../{kind}.pt", style, before=before)
    return "clear" + commands + SINGLE_POINT.format(name=label or f"{kind}-{name}")


@pytest.fixture(scope="session")
def nonlocal_results(nonlocal_folder):
    """Folder with the results on some ranks: one process computes all structures."""

    @functools.cache
    def on_ranks(ranks: int) -> Path:
        place = nonlocal_folder / f"ranks{ranks}"
        place.mkdir()
        run(place, "".join(single_point(kind, name) for kind, name in CASES), ranks)
        return place

    return on_ranks


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("ranks", RANKS)
def test_equals_pytorch(nonlocal_results, ranks, kind, name):
    found, known = read_single_point(nonlocal_results(ranks), f"{kind}-{name}"), expected(kind, name)
    virial = known.virial[0].numpy()
    # plane waves on a grid leave a trace of asymmetry, and LAMMPS keeps one half
    symmetric = 0.5 * (virial + virial.T)[VOIGT][:6]
    scale = max(np.abs(virial).max(), 1.0)
    assert found.energy == pytest.approx(known.energy.item(), rel=1e-12)
    np.testing.assert_allclose(found.energies, known.outputs.energies.detach(), rtol=1e-12)
    np.testing.assert_allclose(found.forces, known.forces, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.virial, symmetric, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(found.virials.sum(0), symmetric, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(found.centroid_virials.sum(0), virial[VOIGT], rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_virials_of_atoms_do_not_know_ranks(nonlocal_results, ranks, kind, name):
    one, many = (read_single_point(nonlocal_results(n), f"{kind}-{name}") for n in (1, ranks))
    scale = max(np.abs(one.virials).max(), 1.0)
    np.testing.assert_allclose(many.virials, one.virials, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(many.centroid_virials, one.centroid_virials, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_attention_matters_here(kind):
    """Were far messages lost, forces would be off by far more than the gates above."""
    name = "chain" if kind != "efa" else "cluster"
    atoms, molecules = nonlocal_structure(name)
    alone = pytorch(atoms, nonlocal_toy(kind), group=np.arange(len(atoms)))
    assert (alone.forces - expected(kind, name).forces).abs().max() > 1e-3


def test_one_group_of_all_atoms(nonlocal_folder):
    """Needs no molecules, says what it costs, and two molecules are then not the sum of both."""
    place = nonlocal_folder / "all"
    place.mkdir()
    atoms, molecules = nonlocal_structure("open")
    write_data(place / "data.atomic", atoms)
    style = "so3k precision float64 groups all"
    output = run(place, setup(atoms, "data.atomic", "../sphc.pt", style) + SINGLE_POINT.format(name="all"), 2)
    warning = "WARNING: so3k: groups all makes one group of all atoms: the energy is then neither extensive"
    assert output.count(warning) == 1
    found = read_single_point(place, "all")
    known = pytorch(atoms, nonlocal_toy("sphc"), group=np.zeros(len(atoms)))
    np.testing.assert_allclose(found.forces, known.forces, rtol=0, atol=1e-10)
    assert abs(found.energy - expected("sphc", "open").energy.item()) > 1e-4


@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_float32(nonlocal_folder, kind):
    place = nonlocal_folder / f"float32-{kind}"
    place.mkdir()
    run(place, single_point(kind, "ions", "so3k precision float32 device cpu", "float32"), 2)
    found, known = read_single_point(place, "float32"), expected(kind, "ions").forces.numpy()
    assert 1e-9 < np.abs(found.forces - known).max() < 1e-3 * np.abs(known).max()


def test_log_says_what_it_costs(nonlocal_folder):
    place = nonlocal_folder / "log"
    place.mkdir()
    output = run(place, single_point("sphc", "cluster"), 2)
    assert "so3k: sphc attention within 3 groups, the largest of 294 atoms; a rank gathers up to " in output
