"""`so3k-md eval` gives the errors that a direct calculation gives, and files that keep every digit."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.units import GPa

from so3k_md.checkpoint import load, save_checkpoint
from so3k_md.cli import main
from so3k_md.data import Dataset, read_frames
from so3k_md.data.write import write_extxyz
from so3k_md.evaluate import LARGEST_BATCH, predict, score
from so3k_md.model import ModelConfig, So3krates, set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of

SMALL = ModelConfig(
    features=8, layers=2, heads=2, degrees=(1, 2), n_rbf=6, radial_hidden=8, chi_hidden=4, cutoff=4.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and data: labelled and not, periodic and not, of different sizes."""
    folder = tmp_path_factory.mktemp("eval")
    model = set_dtype(So3krates(SMALL, [1, 6, 8]), torch.float64)
    model.energies.head.shift[6] = -1029.5
    save_checkpoint(folder / "model.ckpt", model, model.state_dict(), {})
    rng = np.random.default_rng(1)
    blocks = []
    for k, n in enumerate([5, 1, 9, 4]):
        lattice = 'Lattice="3 0 0 1 3.5 0 0 0.2 4" pbc="T T T"' if k % 2 else 'pbc="F F F"'
        stress = 'stress="1 0 0 0 1 0 0 0 1"' if k == 3 else ""
        rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("CHOHHHOCC", 5 * rng.random((n, 3)), strict=False)]
        head, columns = ("energy=-7.5", " 0.5 -0.25 0") if k != 2 else ("", "")
        properties = "Properties=species:S:1:pos:R:3" + (":forces:R:3" if columns else "")
        blocks.append(
            "\n".join([str(n), f"{lattice} {properties} {head} {stress}", *(r + columns for r in rows)])
        )
    (folder / "data.xyz").write_text("\n".join(blocks) + "\n")
    bare = [(frame, {}, {}) for frame in read_frames(folder / "data.xyz")]
    write_extxyz(folder / "bare.xyz", bare)
    return folder


def run(folder, *arguments):
    return main(["eval", str(folder / "model.ckpt"), *map(str, arguments)])


@pytest.fixture(scope="module")
def output(folder):
    """Everything that the command writes."""
    words = ["--json", folder / "a.json", "--predictions", folder / "a.xyz", "--plot", folder / "plots"]
    assert run(folder, folder / "data.xyz", *words, "--device", "cpu", "--dtype", "float64") == 0
    return json.loads((folder / "a.json").read_text()), ase.io.read(folder / "a.xyz", ":"), folder / "plots"


def test_document_is_a_direct_calculation(folder, output):
    document, _, _ = output
    model, frames = load(folder / "model.ckpt"), read_frames(folder / "data.xyz")
    energy_errors, forces_errors = [], []
    for k, frame in enumerate(frames):
        direct = evaluate(model, Dataset([frame], needs_of(model).cutoff).batch([0]).graph, 1)
        predicted = document["frames"]["energy_predicted"][k]
        assert predicted == pytest.approx(float(direct.energy), rel=1e-13)
        if k == 2:
            continue
        energy_errors.append(float(direct.energy) + 7.5)
        forces_errors.append((direct.forces.numpy() - [0.5, -0.25, 0]).ravel())
        assert document["frames"]["forces_mae"][k] == pytest.approx(
            np.abs(forces_errors[-1]).mean(), rel=1e-10
        )
    metrics, joined = document["metrics"], np.concatenate(forces_errors)
    assert metrics["energy"]["mae"] == pytest.approx(np.abs(energy_errors).mean(), rel=1e-12)
    assert metrics["energy"]["rmse"] == pytest.approx(np.sqrt(np.square(energy_errors).mean()), rel=1e-12)
    per_atom = np.array(energy_errors) / [5, 1, 4]
    assert metrics["energy_per_atom"]["mae"] == pytest.approx(np.abs(per_atom).mean(), rel=1e-12)
    assert metrics["forces"]["mae"] == pytest.approx(np.abs(joined).mean(), rel=1e-10)
    assert metrics["forces"]["rmse"] == pytest.approx(np.sqrt((joined**2).mean()), rel=1e-10)
    assert metrics["forces"]["values"] == 30
    assert metrics["stress"]["frames"] == 1
    assert document["frames"]["energy_reference"] == [-7.5, -7.5, None, -7.5]
    assert document["frames"]["n_atoms"] == [5, 1, 9, 4]
    assert (document["n_frames"], document["n_atoms"], document["dtype"]) == (4, 19, "float64")


def test_predictions_keep_every_digit(folder, output):
    document, structures, _ = output
    frames = read_frames(folder / "data.xyz")
    predictions = predict(load(folder / "model.ckpt"), frames)
    for k, (atoms, frame, found) in enumerate(zip(structures, frames, predictions, strict=True)):
        assert (atoms.positions == frame.positions).all()
        assert (atoms.numbers == frame.numbers).all()
        assert (atoms.pbc == frame.pbc).all()
        assert atoms.get_potential_energy() == document["frames"]["energy_predicted"][k] == found.energy
        assert (atoms.calc.results["forces"] == found.forces).all()
        assert (atoms.calc.results["energies"] == found.energies).all()
        assert ("stress" in atoms.calc.results) == bool(frame.pbc.any())
        if frame.pbc.any():
            assert (atoms.cell.array == frame.cell).all()
            np.testing.assert_allclose(atoms.get_stress(voigt=False), found.stress, atol=1e-17)


def strain_derivative(model, frame, step=1e-5):
    """dE/dε / V by finite differences, eV/Å³."""
    derivative = np.zeros((3, 3))
    for a in range(3):
        for b in range(a, 3):
            strain = np.zeros((3, 3))
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            energies = []
            for sign in (1, -1):
                deform = np.eye(3) + sign * strain
                moved = frame._replace(positions=frame.positions @ deform, cell=frame.cell @ deform)
                energies.append(predict(model, [moved])[0].energy)
            derivative[a, b] = derivative[b, a] = (energies[0] - energies[1]) / (2 * step * frame.volume)
    return derivative


def test_stress_is_the_derivative_of_the_energy(folder):
    model, frame = load(folder / "model.ckpt"), read_frames(folder / "data.xyz")[3]
    stress = predict(model, [frame])[0].stress
    np.testing.assert_allclose(strain_derivative(model, frame), stress, rtol=0, atol=1e-8)
    assert np.abs(stress).max() > 1e-5


@pytest.mark.parametrize(
    ("key", "unit", "sign", "factor"),
    [
        ("stress", None, "ase", 1.0),
        ("REF_stress", "GPa", "ase", 1 / GPa),
        ("REF_stress", "kbar", "opposite", -10 / GPa),  # as VASP writes it: compression is positive
        ("virial", None, "ase", None),  # −V dE/dε / V
        ("REF_vir", "eV", "ase", None),
    ],
)
def test_a_label_in_any_convention_is_the_strain_derivative(folder, tmp_path, key, unit, sign, factor):
    model, frame = load(folder / "model.ckpt"), read_frames(folder / "data.xyz")[3]
    label = strain_derivative(model, frame) * (-frame.volume if factor is None else factor)
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True, info={key: label.ravel()})
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    read = read_frames(tmp_path / "a.xyz", stress_key=key, stress_unit=unit, stress_sign=sign)[0]
    np.testing.assert_allclose(read.stress, predict(model, [frame])[0].stress, rtol=0, atol=1e-7)
    assert np.abs(read.stress).max() > 1e-5


def test_batching_changes_nothing(folder, monkeypatch):
    model, frames = load(folder / "model.ckpt"), read_frames(folder / "data.xyz")
    alone = predict(model, frames, batch_size=1)
    for size, limit in [(3, LARGEST_BATCH), (100, LARGEST_BATCH), (100, 10)]:
        monkeypatch.setattr("so3k_md.evaluate.LARGEST_BATCH", limit)
        for one, other in zip(alone, predict(model, frames, batch_size=size), strict=True):
            assert one.energy == pytest.approx(other.energy, rel=1e-12)
            np.testing.assert_allclose(one.forces, other.forces, atol=1e-11)


def test_single_precision_is_close(folder):
    frames = read_frames(folder / "data.xyz")
    double, single = (predict(load(folder / "model.ckpt", dtype=t), frames) for t in ("float64", "float32"))
    for one, other in zip(double, single, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-4)
    assert double[0].energy != single[0].energy


def test_frames_without_labels(folder, capsys, tmp_path):
    words = ["--json", tmp_path / "a.json", "--predictions", tmp_path / "a.xyz", "--plot", tmp_path / "p"]
    assert run(folder, folder / "bare.xyz", *words) == 0
    assert "no reference" in capsys.readouterr().out
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["metrics"] == dict.fromkeys(["energy", "energy_per_atom", "forces", "stress"])
    assert document["frames"]["energy_reference"] == [None] * 4
    assert len(ase.io.read(tmp_path / "a.xyz", ":")) == 4
    assert not (tmp_path / "p").exists()


def test_table_has_units(folder, output, capsys):
    document, _, _ = output
    assert run(folder, folder / "data.xyz") == 0
    lines = {line[:16].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["energy"][1] == f"{1e3 * document['metrics']['energy']['mae']:.4f}"
    assert [lines["energy"][3], lines["energy per atom"][5], lines["forces"][3]] == [
        "meV",
        "meV/atom",
        "meV/Å",
    ]


def test_pictures_are_made(output):
    _, _, plots = output
    names = sorted(path.name for path in plots.iterdir())
    assert names == ["parity_energy.png", "parity_forces.png", "parity_stress.png"]
    assert all(path.stat().st_size > 5000 for path in plots.iterdir())


def test_perfect_model_scores_zero(folder):
    frames = read_frames(folder / "data.xyz")
    predictions = predict(load(folder / "model.ckpt"), frames)
    own = [
        f._replace(energy=p.energy, forces=p.forces, stress=p.stress)
        for f, p in zip(frames, predictions, strict=True)
    ]
    assert {
        name: (result.mae, result.rmse) for name, result in score(own, predictions).items()
    } == dict.fromkeys(["energy", "energy_per_atom", "forces", "stress"], (0.0, 0.0))


@pytest.mark.parametrize(
    ("data", "words", "says"),
    [
        ("none.xyz", [], "no such data file"),
        ("data.xyz", ["--json", "a.json"], "exists already"),
        ("data.xyz", ["--predictions", "no/such/a.xyz"], "does not exist"),
        ("data.xyz", ["--json", "data.xyz", "--overwrite"], "named twice"),
        ("data.xyz", ["--json", "b", "--predictions", "b"], "named twice"),
        ("data.xyz", ["--plot", "data.xyz"], "a folder is needed"),
        ("data.xyz", ["--plot", "plots"], "exists already"),
        ("data.xyz", ["--batch-size", "0"], "at least 1"),
        ("data.xyz", ["--device", "abacus"], "abacus"),
        ("data.xyz", ["--dtype", "float16"], "float16"),
        ("data.xyz", ["--energy-key", "REF"], "no frame has the energy key 'REF'"),
        ("data.xyz", ["--energy-unit", "erg"], "unknown unit 'erg'"),
        ("chlorine.xyz", [], "frame 1: element Cl is unknown to the model, which knows H, C, O"),
        ("overlap.xyz", [], "frame 0: atoms 0 and 1 have the same position"),
        ("data.xyz", [], "there is no model file"),
    ],
)
def test_refuses_in_one_line(folder, output, tmp_path, monkeypatch, capsys, data, words, says):
    (folder / "chlorine.xyz").write_text("1\n\nH 0 0 0\n2\n\nH 0 0 0\nCl 1.3 0 0\n")
    (folder / "overlap.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0\n")
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    model = "nomodel" if "no model" in says else "model.ckpt"
    fresh = [] if "--json" in words else ["--json", "fresh.json"]
    assert main(["eval", model, data, *words, *fresh]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("so3k-md: error: ")
    assert len(error.strip().splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_model_that_gives_nan_is_refused(folder, capsys, tmp_path):
    model = set_dtype(So3krates(SMALL, [1, 6, 8]), torch.float64)
    model.representation.embedding.weight.data.fill_(float("nan"))
    save_checkpoint(tmp_path / "nan.ckpt", model, model.state_dict(), {})
    words = ["eval", str(tmp_path / "nan.ckpt"), str(folder / "data.xyz"), "--json", str(tmp_path / "a.json")]
    assert main(words) == 2
    assert "frame 0: the model gives no finite energy" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
