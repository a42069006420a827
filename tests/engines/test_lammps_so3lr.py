"""Charges, electrostatics and dispersion in LAMMPS are those of PyTorch, on any number of ranks."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import (
    LONG_RANGE,
    SINGLE_POINT,
    lammps_frame,
    read_long_range,
    read_single_point,
    run,
    setup,
    write_data,
)
from so3lr_toys import ammonium, ions, so3lr_toy, water_dimer, waters
from toys import save_toy

from so3k_md.engines.ase import So3kCalculator
from so3k_md.graph import COULOMB
from so3k_md.model.forces import Evaluation, evaluate

RANKS = (1, 2, 3, 4)
SYMBOLS = ("H", "C", "N", "O")
VOIGT = ([0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1])
CUTOFF_LR = 6.0  # Å, longer than half of every dense box here
FRAGMENTS = " fragments molecule fragment_charge 2 -1 fragment_charge 7 1"
MOVED = (103.1, -57.7, 41.3)  # Å
# structure, form of the Coulomb energy, further words of pair_style
CASES = [
    ("dimer", "kspace", ""),
    ("dimer", "shifted", ""),
    ("dimer", "shifted+self", ""),
    ("dimer moved", "kspace", ""),
    ("ammonium", "kspace", " charge 1"),
    ("ions", "kspace", FRAGMENTS),
    ("ions", "shifted", FRAGMENTS),
    ("corner", "kspace", FRAGMENTS),
    ("corner", "shifted+self", FRAGMENTS),
    ("charged cell", "kspace", " charge 1"),
    ("water", "kspace", ""),
    ("water", "shifted", ""),
    ("water", "shifted+self", ""),
    ("water moved", "kspace", ""),
    ("triclinic", "kspace", ""),
    ("triclinic", "shifted", ""),
]


def long_structure(name: str) -> Atoms:
    """A structure in LAMMPS' frame, with its charge or its fragments."""
    kind = name.removesuffix(" moved")
    if kind == "dimer":
        atoms = water_dimer()
    elif kind in ("ammonium", "charged cell"):
        atoms = ammonium()
    elif kind in ("ions", "corner"):
        atoms = ions()
    else:
        atoms = waters(2, triclinic=True) if kind == "triclinic" else waters(3)
    if kind in ("corner", "charged cell"):  # all but some ranks own nothing
        atoms.set_cell([[30.0, 0, 0], [2.0, 28.0, 0], [0, -3.0, 32.0]] if kind == "corner" else [8.0] * 3)
        atoms.pbc = True
    if name.endswith("moved"):
        atoms.positions += MOVED
    return lammps_frame(atoms)


@functools.cache
def by_pytorch(name: str, coulomb: str) -> Evaluation:
    """What the calculator for ASE evaluates."""
    calculator = So3kCalculator(copy.deepcopy(so3lr_toy()), coulomb=coulomb, cutoff_lr=CUTOFF_LR)
    return evaluate(calculator.model, calculator.graph(long_structure(name)), 1)


def file_of(name: str) -> str:
    return f"data.{name.replace(' ', '-')}"


def label(name: str, coulomb: str) -> str:
    return f"{name}-{coulomb}".replace(" ", "-")


def style(coulomb: str, words="", precision="float64") -> str:
    return f"so3k precision {precision} device cpu coulomb {coulomb} cutoff_lr {CUTOFF_LR}{words}"


def commands(name: str, coulomb: str, words="", before="", **options) -> str:
    """The commands up to the force field; the charges of fragments go by molecule."""
    if "fragment" in long_structure(name).arrays:
        before += "atom_style molecular\n"
    options = {"style": style(coulomb, words), "symbols": SYMBOLS} | options
    return setup(long_structure(name), f"../{file_of(name)}", "../toy.pt", before=before, **options)


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory):
    """Model and data files."""
    folder = tmp_path_factory.mktemp("lammps-so3lr")
    save_toy(folder / "toy.pt", so3lr_toy())
    for name in {name for name, _, _ in CASES}:
        atoms = long_structure(name)
        write_data(folder / file_of(name), atoms, SYMBOLS, atoms.arrays.get("fragment"), wrap=False)
    return folder


@pytest.fixture
def place(long_folder):
    """An empty folder beside model and data files."""
    folder = long_folder / f"run{len(list(long_folder.iterdir()))}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def long_results(long_folder):
    """Folder with the results on some ranks: one process computes all structures."""

    @functools.cache
    def on_ranks(ranks: int) -> Path:
        place = long_folder / f"ranks{ranks}"
        place.mkdir()
        script = ""
        for name, coulomb, words in CASES:
            output = (LONG_RANGE + SINGLE_POINT).format(name=label(name, coulomb))
            script += "clear" + commands(name, coulomb, words) + output
        run(place, script, ranks)
        return place

    return on_ranks


@pytest.mark.parametrize("case", CASES, ids=lambda case: label(*case[:2]))
@pytest.mark.parametrize("ranks", RANKS)
def test_equals_pytorch(long_results, ranks, case):
    name, coulomb, _ = case
    found = read_single_point(long_results(ranks), label(name, coulomb))
    long, known = read_long_range(long_results(ranks), label(name, coulomb)), by_pytorch(name, coulomb)
    virial = known.virial[0].numpy()
    symmetric = 0.5 * (virial + virial.T)
    scale = max(np.abs(virial).max(), 1.0)
    assert found.energy == pytest.approx(known.energy.item(), rel=1e-9)
    np.testing.assert_allclose(found.energies, known.outputs.energies.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.forces, known.forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.virial, symmetric[VOIGT][:6], rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(found.virials.sum(0), symmetric[VOIGT][:6], rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(found.centroid_virials.sum(0), virial[VOIGT], rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(long.charges, known.outputs.charges, rtol=0, atol=1e-10)
    np.testing.assert_allclose(long.ratios, known.outputs.ratios, rtol=0, atol=1e-10)
    np.testing.assert_allclose(long.parts, known.outputs.parts.sum(0), rtol=1e-10, atol=1e-10)
    assert long.charge == pytest.approx(known.outputs.charges.sum().item(), abs=1e-10)
    dipole = known.outputs.charges.numpy() @ long_structure(name).positions
    np.testing.assert_allclose(long.dipole, dipole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: label(*case[:2]))
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_ranks_agree(long_results, ranks, case):
    one, many = (read_single_point(long_results(n), label(*case[:2])) for n in (1, ranks))
    assert many.energy == pytest.approx(one.energy, rel=1e-12)
    np.testing.assert_allclose(many.forces, one.forces, rtol=0, atol=1e-10)
    scale = max(np.abs(one.virial).max(), 1.0)
    np.testing.assert_allclose(many.virial, one.virial, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(many.virials, one.virials, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("name", ["dimer", "water"])
def test_origin_does_not_matter(long_results, name):
    here, there = (read_single_point(long_results(3), label(n, "kspace")) for n in (name, f"{name} moved"))
    assert there.energy == pytest.approx(here.energy, rel=1e-12)
    np.testing.assert_allclose(there.forces, here.forces, rtol=0, atol=1e-10)


def test_charge_stays_in_its_fragment(long_results):
    charges = read_long_range(long_results(4), label("ions", "kspace")).charges
    fragment = long_structure("ions").arrays["fragment"]
    sums = [charges[fragment == number].sum() for number in (2, 4, 7)]
    np.testing.assert_allclose(sums, [-1, 0, 1], rtol=0, atol=1e-12)
    assert np.ptp(charges) > 0.1


def test_the_cases_tell_errors(long_results):
    """Were a part of the physics lost, results would be off by far more than the gates above."""
    for name, coulomb, _ in CASES:
        parts = by_pytorch(name, coulomb).outputs.parts.sum(0)
        assert parts[[0, 2, 3]].abs().min() > 1e-3, (name, coulomb)
    energies = [by_pytorch("water", coulomb).energy.item() for coulomb in COULOMB]
    assert np.abs(np.subtract.outer(energies, energies)[np.triu_indices(3, 1)]).min() > 1e-3


def test_one_charge_for_all_is_another_energy(place):
    run(place, commands("ions", "kspace", " charge 0") + SINGLE_POINT.format(name="all"), 2)
    apart = by_pytorch("ions", "kspace").energy.item()
    assert abs(read_single_point(place, "all").energy - apart) > 1e-3


@pytest.mark.parametrize("coulomb", ["kspace", "shifted"])
def test_float32(place, coulomb):
    script = commands("water", coulomb, style=style(coulomb, precision="float32"))
    run(place, script + SINGLE_POINT.format(name="single"), 2)
    found, known = read_single_point(place, "single"), by_pytorch("water", coulomb)
    forces = known.forces.numpy()
    assert 1e-9 < np.abs(found.forces - forces).max() < 1e-4 * np.abs(forces).max()
    assert found.energy == pytest.approx(known.energy.item(), abs=1e-3)


def test_real_units(place):
    """Energies and their parts in kcal/mol; charges stay e."""
    script = commands("corner", "kspace", FRAGMENTS, units="real")
    run(place, script + (LONG_RANGE + SINGLE_POINT).format(name="real"), 2)
    long, known = read_long_range(place, "real"), by_pytorch("corner", "kspace")
    factor = read_single_point(place, "real").energy / known.energy.item()
    assert factor == pytest.approx(23.0605, rel=1e-5)
    np.testing.assert_allclose(long.parts, known.outputs.parts.sum(0) * factor, rtol=1e-9)
    np.testing.assert_allclose(long.charges, known.outputs.charges, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ranks", [1, 3])
def test_atoms_of_other_styles_have_no_charge(place, ranks):
    """Argon beside water, of a style of its own without strength."""
    mixed = long_structure("water") + Atoms("ArAr", positions=[[1, 9, 1], [6, 2, 5]])
    write_data(place / "data.mixed", mixed, (*SYMBOLS, "Ar"))
    overlay = f"hybrid/overlay {style('kspace')} lj/cut 9.0"
    script = setup(mixed, "data.mixed", "so3k ../toy.pt", overlay, symbols=(*SYMBOLS, "NULL"))
    script += "pair_coeff * * lj/cut 0.0 1.0\n" + (LONG_RANGE + SINGLE_POINT).format(name="mixed")
    run(place, script, ranks)
    found, long = read_single_point(place, "mixed"), read_long_range(place, "mixed")
    known = by_pytorch("water", "kspace")
    assert found.energy == pytest.approx(known.energy.item(), rel=1e-9)
    np.testing.assert_allclose(found.forces[:-2], known.forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(long.charges[:-2], known.outputs.charges, rtol=0, atol=1e-10)
    assert not long.charges[-2:].any()


def test_log_names_the_form(place):
    output = run(place, commands("corner", "kspace", FRAGMENTS) + "run 0\n", 2)
    assert "so3k: coulomb kspace (sum over the lattice), cutoff_lr 6 A, total charge +0 e" in output
    assert "energies do not contain the energy shift, -10 eV per atom" in output
    assert "so3k: charge is conserved in each of 3 fragments" in output
    output = run(place, commands("dimer", "shifted+self") + "run 0\n", 1)
    assert "so3k: coulomb shifted+self, cutoff_lr 6 A, total charge +0 e" in output


def test_published_weights(tmp_path):
    """SO3LR itself, where its weights are."""
    pytest.importorskip("so3krates_torch", reason="so3krates-torch, which carries the weights, is not here")
    from so3k_md.cli import main

    assert main(["import", "so3lr", "-o", str(tmp_path / "so3lr.pt"), "--dtype", "float64"]) == 0
    atoms = long_structure("ions")
    write_data(tmp_path / "data.ions", atoms, SYMBOLS, atoms.arrays["fragment"], wrap=False)
    words = style("kspace", FRAGMENTS).replace("cutoff_lr 6.0", "cutoff_lr 12")
    script = setup(atoms, "data.ions", "so3lr.pt", words, before="atom_style molecular\n", symbols=SYMBOLS)
    run(tmp_path, script + (LONG_RANGE + SINGLE_POINT).format(name="so3lr"), 2)
    calculator = So3kCalculator(tmp_path / "so3lr.pt", dtype=torch.float64)
    known = evaluate(calculator.model, calculator.graph(atoms), 1)
    found = read_single_point(tmp_path, "so3lr")
    assert found.energy == pytest.approx(known.energy.item(), rel=1e-9)
    np.testing.assert_allclose(found.forces, known.forces, rtol=0, atol=1e-8)
    charges = read_long_range(tmp_path, "so3lr").charges
    np.testing.assert_allclose(charges, known.outputs.charges, rtol=0, atol=1e-9)
