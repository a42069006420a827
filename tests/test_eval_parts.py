"""`so3k-md eval` gives errors of parts of the data, and predictions with all keys of the data."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from small_models import CONFIGS

from so3k_md.breakdown import by_composition, by_element, by_key, table_of
from so3k_md.checkpoint import load, save_checkpoint
from so3k_md.cli import main
from so3k_md.data import read_frames
from so3k_md.evaluate import predict
from so3k_md.model import So3krates, set_dtype

KINDS = ["bulk", "bulk", "dimer", None, "dimer"]


def structures() -> list[Atoms]:
    """Labelled molecules with keys of every type."""
    rng = np.random.default_rng(4)
    made = []
    for k, kind in enumerate(KINDS):
        symbols = "OHH" if k % 2 else "COHH"
        atoms = Atoms(
            symbols, np.arange(len(symbols))[:, None] + rng.normal(size=(len(symbols), 3), scale=0.2)
        )
        n = len(atoms)
        atoms.info |= {} if kind is None else {"config_type": kind}
        atoms.info |= {
            "charge": 1, "spin": 2.0, "weight": 0.1 + k / 3, "virtual": True, "who": 'a "b" c',
            "matrix": rng.normal(size=(2, 2)), "list": np.array([1, 2, k]), "note": {"a": [1, None]},
        }  # fmt: skip
        atoms.arrays |= {
            "tag": np.array([f"t{i}" for i in range(n)]), "number": np.arange(n), "flag": np.arange(n) > 1,
            "field": rng.normal(size=(n, 3)) / 3, "group": np.zeros(n, int), "other": rng.normal(size=n),
        }  # fmt: skip
        labels = {
            "energy": float(rng.normal()),
            "forces": rng.normal(size=(n, 3)),
            "magmoms": rng.normal(size=n),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    model = set_dtype(So3krates(CONFIGS["euclidean-2024"], [1, 6, 8]), torch.float64)
    save_checkpoint(folder / "model.ckpt", model, model.state_dict(), {})
    ase.io.write(folder / "data.xyz", structures())
    return folder


def evaluated(folder, data, *words):
    return main(["eval", str(folder / "model.ckpt"), str(data), *map(str, words), "--overwrite"])


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_predictions_keep_all_keys(folder):
    assert evaluated(folder, folder / "data.xyz", "--predictions", folder / "p.xyz") == 0
    predictions = predict(load(folder / "model.ckpt"), read_frames(folder / "data.xyz"))
    for before, found, after in zip(
        ase.io.read(folder / "data.xyz", ":"), predictions, ase.io.read(folder / "p.xyz", ":"), strict=True
    ):
        for name in before.info:
            np.testing.assert_array_equal(after.info[name], before.info[name])
        for name in before.arrays:
            np.testing.assert_array_equal(after.arrays[name], before.arrays[name])
        labels = before.calc.results
        assert after.info["reference_energy"] == labels["energy"]
        assert (after.arrays["reference_forces"] == labels["forces"]).all()
        assert (after.calc.results["magmoms"] == labels["magmoms"]).all()
        assert after.get_potential_energy() == found.energy
        assert (after.get_forces() == found.forces).all()
    # what was written can be read again under the same meaning
    again = read_frames(folder / "p.xyz", "reference_energy", "reference_forces", spin_convention="S")
    assert [frame.charge_state.charge for frame in again] == [1.0] * 5
    assert [frame.energy for frame in again] == [
        atoms.get_potential_energy() for atoms in ase.io.read(folder / "data.xyz", ":")
    ]


def test_arrays_of_npz_are_kept(folder, tmp_path):
    rng = np.random.default_rng(2)
    arrays = {"z": np.array([8, 1, 0]), "R": rng.normal(size=(4, 3, 3)), "E": rng.normal(size=4)}
    arrays |= {"id": np.array(["a", "b", "c", "d"]), "q": rng.normal(size=(4, 3)), "theory": np.array(b"PBE")}
    np.savez(tmp_path / "a.npz", **arrays)
    assert evaluated(folder, tmp_path / "a.npz", "--predictions", tmp_path / "p.xyz", "--by", "id") == 0
    for k, atoms in enumerate(ase.io.read(tmp_path / "p.xyz", ":")):
        assert [atoms.info[key] for key in ("id", "E", "theory")] == ["abcd"[k], arrays["E"][k], "PBE"]
        assert (atoms.arrays["q"] == arrays["q"][k, :2]).all()


def test_frames_for_training_keep_nothing(folder):
    frames = read_frames(folder / "data.xyz")
    assert all(not frame.kept.values and not frame.kept.arrays for frame in frames)


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_errors_of_parts_are_those_of_the_parts_alone(folder):
    frames = read_frames(folder / "data.xyz", keep=True)
    predictions = predict(load(folder / "model.ckpt"), frames)
    errors = [p.forces - f.forces for f, p in zip(frames, predictions, strict=True)]
    elements = by_element(frames, predictions)
    for z, symbol in ((1, "H"), (6, "C"), (8, "O")):
        mine = np.concatenate([e[f.numbers == z].ravel() for e, f in zip(errors, frames, strict=True)])
        found = elements.scores[symbol]["forces"]
        assert found.mae == pytest.approx(np.abs(mine).mean(), rel=1e-12)
        assert found.rmse == pytest.approx(np.sqrt((mine**2).mean()), rel=1e-12)
        assert found.values == len(mine)
    assert elements.frames == {"H": 5, "O": 5, "C": 3}
    compositions = by_composition(frames, predictions)
    assert compositions.frames == {"CH2O": 3, "H2O": 2}
    water = [predictions[k].energy - frames[k].energy for k in (1, 3)]
    assert compositions.scores["H2O"]["energy"].mae == pytest.approx(np.abs(water).mean(), rel=1e-12)
    kinds = by_key("config_type", frames, predictions)
    assert kinds.frames == {"bulk": 2, "dimer": 2, "no config_type": 1}
    dimers = np.concatenate([errors[2].ravel(), errors[4].ravel()])
    assert kinds.scores["dimer"]["forces"].mae == pytest.approx(np.abs(dimers).mean(), rel=1e-12)
    assert [line.split()[0] for line in table_of(kinds).splitlines()[2:]] == ["bulk", "dimer", "no"]


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_tables_and_document(folder, capsys):
    assert evaluated(folder, folder / "data.xyz", "--json", folder / "a.json") == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()}
    document = json.loads((folder / "a.json").read_text())
    assert set(document["by_element"]) == {"H", "C", "O"}
    assert set(document["by_key"]["config_type"]) == {"bulk", "dimer", "no config_type"}
    assert float(rows["C"][2]) == pytest.approx(1e3 * document["by_element"]["C"]["forces"]["mae"], abs=1e-3)
    found = document["by_composition"]["CH2O"]
    assert (found["frames"], found["forces"]["values"]) == (3, 36)
    assert float(rows["CH2O"][2]) == pytest.approx(1e3 * found["energy_per_atom"]["mae"], abs=1e-3)
    assert evaluated(folder, folder / "data.xyz", "--by", "weight", "--json", folder / "b.json") == 0
    assert len(json.loads((folder / "b.json").read_text())["by_key"]["weight"]) == 5


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_a_key_that_no_frame_has_is_refused(folder, capsys):
    assert evaluated(folder, folder / "data.xyz", "--by", "kind") == 2
    assert "no frame has the key 'kind'; keys of the frames: charge, config_type" in capsys.readouterr().err
