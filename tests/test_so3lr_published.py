"""SO3LR as published, against numbers that its authors' code gives; needs so3krates-torch for the weights."""

import json
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from small_models import REFERENCE

from so3k_md.convert.rounding import round_like_peer
from so3k_md.convert.so3lr import build, convert
from so3k_md.data.frames import to_frame
from so3k_md.data.structures import _record
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kWarning
from so3k_md.evaluate import predict

PARTS, FORCES = (np.load(REFERENCE / f"so3lr_{name}.npz") for name in ("parts", "forces"))
NAMES = sorted({key.split("|")[0] for key in FORCES.files})
# rounding -> eV/atom, eV/Å, e and ratios, eV/Å³: constants in float32, as the peer has them, or exact ones
GATES = {"exact": (1e-6, 5e-6, 1e-6, 1e-7), "peer": (1e-10, 2e-10, 1e-9, 1e-11)}


def installed() -> bool:
    try:
        version("so3krates-torch")
    except PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not installed(), reason="the package so3krates-torch, with the weights, is not here"
)


@pytest.fixture(scope="module", params=GATES)
def published(request):
    """The weights in float64, and how exact they are to be."""
    model = build(convert(), torch.float64)
    return round_like_peer(model) if request.param == "peer" else model, GATES[request.param]


def structure(name: str) -> Atoms:
    cell = PARTS[f"{name}|cell"]
    atoms = Atoms(PARTS[f"{name}|z"], PARTS[f"{name}|r"], cell=cell, pbc=bool(np.any(cell)))
    atoms.info["charge"] = float(FORCES[f"{name}|charge"])
    return atoms


@pytest.mark.parametrize("name", NAMES)
def test_structures_of_the_authors(published, name):
    model, (energy, forces, atomic, stress) = published
    atoms = structure(name)
    for cutoff in ("12", "1000"):
        if f"{name}|forces|{cutoff}" not in FORCES:
            continue
        atoms.calc = So3kCalculator(model, coulomb="shifted", cutoff_lr=float(cutoff))
        expected = FORCES[f"{name}|energy|{cutoff}"]
        assert abs(atoms.get_potential_energy() - expected) < energy * len(atoms)
        np.testing.assert_allclose(atoms.get_forces(), FORCES[f"{name}|forces|{cutoff}"], rtol=0, atol=forces)
        results = atoms.calc.results
        np.testing.assert_allclose(results["charges"], PARTS[f"{name}|q"], rtol=0, atol=atomic)
        np.testing.assert_allclose(results["hirshfeld_ratios"], PARTS[f"{name}|h"], rtol=0, atol=atomic)
        if f"{name}|stress|{cutoff}" in FORCES:
            known = FORCES[f"{name}|stress|{cutoff}"]
            np.testing.assert_allclose(atoms.get_stress(), known, rtol=0, atol=stress)


def test_parts_add_up_and_the_shift_stands_apart(published):
    model = published[0]
    atoms = structure("glycine_zwitterion_3w")
    atoms.calc = So3kCalculator(model)
    energy = atoms.get_potential_energy()
    assert sum(atoms.calc.results["energy_parts"].values()) == pytest.approx(energy, abs=1e-10)
    assert atoms.calc.results["energy_shift"] == pytest.approx(-163.6181183 * len(atoms), rel=1e-8)
    assert atoms.calc.results["charges"].sum() == pytest.approx(0.0, abs=1e-12)


def test_evaluation_of_files_is_the_calculator(published):
    model = published[0]
    chosen = [structure(name) for name in ("NH4+", "H2O", "water_64", "OH-")]
    frames = [
        to_frame(_record(atoms, {}, "auto", "memory")[0], place, "memory")
        for place, atoms in enumerate(chosen)
    ]
    for atoms, found in zip(chosen, predict(model, frames, batch_size=3), strict=True):
        atoms.calc = So3kCalculator(model)
        assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.physics.charges, atoms.calc.results["charges"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.physics.dipole, atoms.calc.results["dipole"], rtol=0, atol=1e-9)


def test_box_of_eight_copies_has_eight_times_the_energy(published):
    """The exact sum is extensive; so is the cut-off one."""
    model = published[0]
    atoms = structure("water_64")[:24]
    for coulomb in ("kspace", "shifted", "shifted+self"):
        energies = []
        for copies in (1, 2):
            box = atoms.repeat((copies, 1, 1))
            box.calc = So3kCalculator(model, coulomb=coulomb)
            energies.append(box.get_potential_energy())
        assert energies[1] == pytest.approx(2 * energies[0], rel=1e-10)


def test_forces_of_float32_are_those_of_float64(published):
    """The gate of deployment: 1e-4 eV/Å rms."""
    model = published[0]
    atoms = structure("water_64")
    atoms.calc = So3kCalculator(model)
    exact = atoms.get_forces()
    single = build(convert(), dtype=torch.float32)
    for kernels in ("off", "auto"):
        atoms.calc = So3kCalculator(single, kernels=kernels)
        assert np.sqrt(((atoms.get_forces() - exact) ** 2).mean()) < 1e-5


@pytest.mark.parametrize(
    ("symbols", "info", "message"),
    [
        ("NaCl", {}, "atom 0 is Na, the model knows only H, C, N, O, F, P, S, Cl"),
        ("OH", {}, "9 electrons cannot have 0 unpaired ones"),
        ("O2", {"multiplicity": 3}, "trained on singlets only"),
        ("H2O", {"charge": 0.5}, "not a whole number"),
    ],
)
def test_what_was_not_trained_is_refused(published, symbols, info, message):
    from so3k_md.errors import So3kError

    atoms = Atoms(symbols, positions=np.eye(3)[: len(Atoms(symbols))], info=info)
    atoms.calc = So3kCalculator(published[0])
    with pytest.raises(So3kError, match=message):
        atoms.get_potential_energy()


def test_atoms_nearer_than_trained_are_warned_of_once(published):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0.3, 0, 0]])
    atoms.calc = So3kCalculator(published[0])
    with pytest.warns(So3kWarning, match=r"atoms [01] and [01] are 0\.30 Å apart"):
        atoms.get_potential_energy()
    atoms.positions[1, 0] = 0.29
    atoms.get_potential_energy()


def test_evaluation_names_the_form_of_the_coulomb_energy(published, tmp_path, capsys):
    from so3k_md.cli import main
    from so3k_md.export import torchscript

    model = published[0]
    torchscript.save(model, tmp_path / "so3lr.pt", "so3lr")
    atoms = structure("H2O")
    atoms.info["energy"] = float(FORCES["H2O|energy|12"])
    write(tmp_path / "water.xyz", atoms, format="extxyz")
    words = ["eval", str(tmp_path / "so3lr.pt"), str(tmp_path / "water.xyz")]
    assert main([*words, "--coulomb", "shifted", "--json", str(tmp_path / "out.json")]) == 0
    assert "coulomb shifted, dispersion to 12 Å" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert metrics["energy"]["mae"] < 1e-5
    assert main([*words, "--coulomb", "ewald"]) == 2
    assert "choose one of kspace, shifted, shifted+self" in capsys.readouterr().err
