"""Fine-tuning: starts from a model, changes what a strategy allows, and keeps the facts of the start."""

import csv
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from so3k_md import ModelConfig, So3krates, load
from so3k_md.checkpoint import eager, metadata, read_checkpoint, save_checkpoint
from so3k_md.cli import main
from so3k_md.data import Frame, read_frames
from so3k_md.data.batches import to_targets
from so3k_md.data.write import write_extxyz
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.evaluate import predict
from so3k_md.model.weights import file_weights
from so3k_md.needs import needs_of, with_needs
from so3k_md.train import trainer
from so3k_md.train.config import LossConfig, StartConfig, TrainConfig, from_sections
from so3k_md.train.finetune import fitted
from so3k_md.train.loss import Errors, weighted_loss
from so3k_md.train.lowrank import LowRank
from so3k_md.train.optimizer import plateaus
from so3k_md.train.start import choose_weights, refit_elements, replayed, start_model
from so3k_md.train.validation import is_stalled

pytestmark = pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")

SMALL = {
    "features": 24,
    "layers": 2,
    "n_rbf": 8,
    "radial_hidden": 16,
    "chi_hidden": 8,
    "degrees": (1, 2, 3, 4),
}
OFFSETS = {1: -13.0, 8: -2000.0}  # element energies of the new level of theory, eV
SETTINGS = ["train.epochs=3", "train.batch_size=2", "train.warmup_steps=1"]


def teacher() -> So3krates:
    """A model with charges, with facts that must not be lost."""
    config = replace(ModelConfig.preset("so3lr"), **SMALL, n_species=20)
    model = So3krates(config, [1, 8], 5)
    with torch.no_grad():
        model.energies.physics.charge_head.table.copy_(torch.linspace(0.3, -0.3, 20))
        model.energies.physics.charge_head.mlp.out.weight.mul_(0.2)
    facts = {"name": "teacher", "licence": "MIT", "citations": ["a paper"]}
    return with_needs(model, metadata=json.dumps(facts), energy_shift=-7.0)


def moved(k: int, box: bool) -> Atoms:
    rng = np.random.default_rng(k)
    atoms = molecule("H2O") if k % 2 else molecule("H2O2")
    if box:
        atoms.set_cell(np.eye(3) * 6.0), atoms.set_pbc(True)
    atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return atoms


def bare(k: int, box: bool = False) -> Frame:
    atoms = moved(k, box)
    cell = np.array(atoms.cell) if box else None
    return Frame(atoms.numbers, atoms.positions, cell, atoms.pbc, None, None, None, k, "made")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """start.ckpt, and new.xyz and old.xyz with labels of the start on another scale of energies."""
    path = tmp_path_factory.mktemp("finetune")
    model = teacher()
    save_checkpoint(path / "start.ckpt", model, model.state_dict(), {})
    for name, numbers in (("new", range(12)), ("old", range(20, 26))):
        frames = [bare(k, k % 3 == 0) for k in numbers]
        entries = []
        for frame, found in zip(frames, predict(model.eval(), frames), strict=True):
            shift = sum(OFFSETS[z] for z in frame.numbers.tolist())
            values = {"energy": found.energy + shift}
            values |= {"dipole": found.physics.dipole} if frame.volume is None else {"stress": found.stress}
            arrays = {"forces": 1.2 * found.forces}
            if frame.place % 4:
                arrays |= {"charges": found.physics.charges, "ratio": found.physics.hirshfeld_ratios}
            entries.append((frame, values, arrays))
        write_extxyz(path / f"{name}.xyz", entries)
    return path


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the bits are equal; constants of elements without free atoms are nan."""
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv") as file:
        return list(csv.DictReader(file))


def finetune(folder: Path, run: Path, *arguments: str) -> int:
    return main(
        [
            "finetune",
            str(folder / "start.ckpt"),
            str(folder / "new.xyz"),
            *SETTINGS,
            *arguments,
            "-o",
            str(run),
        ]
    )


def test_one_command_from_a_model_and_data_to_a_better_model(folder, tmp_path, capsys):
    words = ["train.epochs=30", "--test", str(folder / "new.xyz"), "--old", str(folder / "old.xyz")]
    assert finetune(folder, tmp_path / "run", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    forces = {
        line.split()[0]: [float(word) for word in line.split()[2:4]] for line in lines if "forces" in line
    }
    assert set(forces) == {"validation", "new.xyz", "old.xyz"}
    assert forces["new.xyz"][1] < 0.5 * forces["new.xyz"][0]
    made = load(tmp_path / "run" / "best.ckpt")
    needs, facts = needs_of(made), metadata(made)
    assert (needs.energy_shift, needs.elements) == (0.0, [1, 8])
    assert facts["start"]["licence"] == "MIT"
    assert facts["start"]["citations"] == ["a paper"]
    assert facts["start"]["name"] == "teacher"
    assert facts["training"]["n_train"] == 11
    assert main(["export", str(tmp_path / "run" / "best.ckpt"), "-o", str(tmp_path / "made.pt")]) == 0
    frames = read_frames(folder / "new.xyz")
    for a, b in zip(predict(made, frames), predict(load(tmp_path / "made.pt"), frames), strict=True):
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-5)


def test_losses_of_charges_fall(folder, tmp_path):
    weights = [
        "loss.dipole=1",
        "loss.charges=1",
        "loss.hirshfeld_ratios=1",
        "data.hirshfeld_ratios_key=ratio",
    ]
    slow = [*weights, "data.n_valid=4", "loss.stress=0.1", "train.epochs=1", "train.learning_rate=1e-9"]
    assert finetune(folder, tmp_path / "slow", *slow) == 0
    quick = [*slow[:-2], "train.epochs=20", "train.patience=0"]
    assert finetune(folder, tmp_path / "quick", *quick) == 0
    first, last = rows(tmp_path / "slow")[0], rows(tmp_path / "quick")[-1]
    # the start is right for these labels, and the forces, which are not, pull it away only so far
    for name in ("valid_dipole_mae_me_angstrom", "valid_charges_mae_me", "valid_hirshfeld_ratios_mae_1e3"):
        assert float(first[name]) < 0.2
        assert float(last[name]) < 60
    assert float(last["valid_forces_mae_mev_per_angstrom"]) < float(
        first["valid_forces_mae_mev_per_angstrom"]
    )


@pytest.mark.parametrize("strategy", ["full", "lora", "first", "last", "head"])
def test_a_strategy_changes_its_weights_alone(folder, tmp_path, strategy):
    run = tmp_path / "run"
    assert finetune(folder, run, "--strategy", strategy, "start.lora_rank=2") == 0
    before, after = (file_weights(eager(load(path))) for path in (folder / "start.ckpt", run / "last.ckpt"))
    changed = {name for name in before if not same(before[name], after[name])} - {"head.shift"}
    heads = {name for name in before if "head." in name}
    layer = {k: {name for name in before if name.startswith(f"layers.{k}.")} for k in (0, 1)}
    allowed = {
        "full": set(before),
        "lora": {name for name in before if before[name].ndim > 1},
        "first": layer[0] | {name for name in before if "embedding" in name},
        "last": layer[1] | heads,
        "head": heads,
    }[strategy]
    assert changed
    assert changed <= allowed
    if strategy == "lora":
        for name in changed:
            rest = torch.linalg.svdvals((after[name] - before[name]).double())[..., 2:]
            assert float(rest.max()) < 1e-6 * float(before[name].norm()), "rounding of the weights"


@pytest.mark.parametrize("strategy", ["last", "lora"])
def test_resumed_equals_uninterrupted(folder, tmp_path, strategy, monkeypatch):
    words = ["--strategy", strategy, "--replay", str(folder / "old.xyz"), "train.epochs=6"]
    assert finetune(folder, tmp_path / "whole", *words) == 0
    step, taken = trainer.update_average, []

    def interrupted(*arguments):
        step(*arguments)
        taken.append(1)
        if len(taken) == 17:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "update_average", interrupted)
    assert finetune(folder, tmp_path / "cut", *words) == 130
    monkeypatch.setattr(trainer, "update_average", step)
    assert finetune(folder, tmp_path / "cut", *words, "--resume") == 0
    documents = [read_checkpoint(tmp_path / name / "last.ckpt")["weights"] for name in ("whole", "cut")]
    assert [name for name in documents[0] if not same(documents[0][name], documents[1][name])] == []


def test_element_energies_of_another_level_are_found(folder):
    frames = read_frames(folder / "new.xyz")
    model = teacher().eval()
    refit_elements(model, frames, 4)
    for frame, found in zip(frames, predict(model, frames), strict=True):
        assert found.energy == pytest.approx(frame.energy, abs=1e-4)
    for frame, found in zip(frames, fitted(frames, predict(teacher().eval(), frames)), strict=True):
        assert found.energy == pytest.approx(frame.energy, abs=1e-4)


def test_replayed_frames_are_on_the_new_scale(folder):
    model = teacher().eval()
    refit_elements(model, read_frames(folder / "new.xyz"), 4)
    data = from_sections({"model": {}, "data": {"train": "x"}, "loss": {}, "train": {}}).data
    for labels in ("model", "file"):
        start = StartConfig(model="m", replay=str(folder / "old.xyz"), replay_labels=labels, n_replay=4)
        frames = replayed(model, start, data, 4)
        assert len(frames) == 4
        for frame, found in zip(frames, predict(model, frames), strict=True):
            factor = 1.2 if labels == "file" else 1.0
            np.testing.assert_allclose(frame.forces, factor * found.forces, atol=1e-6)
            assert frame.energy == pytest.approx(found.energy, abs=1e-3)


def test_a_new_element_is_warned_of_or_refused(folder):
    with pytest.warns(So3kWarning, match="start.ckpt was not trained on C:"):
        assert needs_of(start_model(str(folder / "start.ckpt"), [1, 6])).elements == [1, 6, 8]
    with pytest.raises(So3kError, match="no room for Fe: its n_species is 20"):
        start_model(str(folder / "start.ckpt"), [26])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.features=48"], "model.features = 48 differs from .*start.ckpt, which has 24"),
        (["start.lora_rank=0"], "start.lora_rank = 0"),
        (["start.replay=absent.xyz"], "absent.xyz"),
        (["loss.charges=1", "data.charges_key=q"], "no frame has the charges key 'q'"),
        (["data.dipole_unit=mile"], "unknown unit 'mile': choose from e.Angstrom, Debye"),
        (["train.decay=stepwise"], "train.decay = 'stepwise'.*plateau"),
    ],
)
def test_bad_settings_of_a_start_are_refused_before_anything_is_written(
    folder, tmp_path, capsys, words, says
):
    assert finetune(folder, tmp_path / "run", *words) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_the_labels_of_charges_are_read(tmp_path):
    """Units, padding, keys that must be given, and dipoles of open frames alone."""
    frames = [bare(1), bare(2), bare(3, box=True)]
    n = max(len(frame.numbers) for frame in frames)
    z, r, q = np.zeros((3, n), int), np.zeros((3, n, 3)), np.zeros((3, n))
    for k, frame in enumerate(frames):
        z[k, : len(frame.numbers)], r[k, : len(frame.numbers)] = frame.numbers, frame.positions
        q[k, : len(frame.numbers)] = 0.1 * np.arange(len(frame.numbers))
    np.savez(tmp_path / "a.npz", z=z, R=r, mu=np.ones((3, 3)), q=q, h=q + 1)
    keys = {"dipole_key": "mu", "charges_key": "q", "hirshfeld_ratios_key": "h"}
    found = read_frames(tmp_path / "a.npz", **keys, dipole_unit="Debye")
    np.testing.assert_allclose(found[0].dipole, 0.2081943, rtol=1e-6)
    for frame in found:
        np.testing.assert_allclose(frame.charges, 0.1 * np.arange(len(frame.numbers)))
        np.testing.assert_allclose(frame.hirshfeld_ratios, frame.charges + 1)
    assert all(frame.charges is None for frame in read_frames(tmp_path / "a.npz"))
    write_extxyz(tmp_path / "b.xyz", [(found[0], {"mu": found[0].dipole}, {"q": found[0].charges})])
    again = read_frames(tmp_path / "b.xyz", dipole_key="mu", charges_key="q")[0]
    assert (again.dipole == found[0].dipole).all()
    assert (again.charges == found[0].charges).all()
    with pytest.raises(So3kError, match=r"frame 0: charges has shape \(3,\), expected \(4,\)|charges"):
        read_frames(tmp_path / "a.npz", charges_key="mu")
    box = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], cell=np.eye(3) * 5, pbc=True)
    frame = bare(1)._replace(
        numbers=box.numbers, positions=box.positions, cell=np.array(box.cell), pbc=box.pbc
    )
    write_extxyz(tmp_path / "c.xyz", [(frame, {"mu": np.ones(3)}, {})])
    assert read_frames(tmp_path / "c.xyz", dipole_key="mu")[0].dipole is None


def test_a_frame_without_a_label_does_not_count():
    with_charges = bare(1)._replace(charges=np.zeros(3), energy=1.0)
    targets = to_targets([with_charges, bare(2)])
    assert targets.has_charges.tolist() == [True] * 3 + [False] * 4
    assert targets.has_energy.tolist() == [True, False]
    assert not targets.has_dipole.any()


def test_the_loss_is_the_written_formula():
    def errors(**given: list[float]) -> Errors:
        values = {name: torch.zeros(0, dtype=torch.float64) for name in Errors._fields}
        return Errors(**values | {name: torch.tensor(x, dtype=torch.float64) for name, x in given.items()})

    found = errors(energy=[2.0, -6.0], n_atoms=[2, 3], forces=[0.1, 0.5], charges=[0.3])
    config = LossConfig(energy=1.0, forces=2.0, charges=3.0, dipole=5.0)
    assert float(weighted_loss(found, config)) == pytest.approx((20 + 2 * 0.13 + 3 * 0.09) / 11)
    assert float(weighted_loss(found, config, per_atom=True)) == pytest.approx((2.5 + 2 * 0.13 + 0.27) / 11)
    huber = replace(config, huber=0.2)
    expected = (0.2 * (3.8 + 11.8) / 2 + 2 * (0.01 + 0.2 * 0.8) / 2 + 3 * 0.2 * 0.4) / 11
    assert float(weighted_loss(found, huber)) == pytest.approx(expected)


def test_low_rank_derivatives_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    for shape in ((5, 4), (3, 6, 4)):
        weight = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        bias = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        target = torch.randn(shape, generator=generator, dtype=torch.float64)
        tuned = LowRank({"w": weight, "b": bias}, 2, TrainConfig(learning_rate=0.1), generator)
        assert not bias.requires_grad
        start, first = weight.detach().clone(), None
        for _ in range(300):
            tuned.zero_grad()
            loss = ((weight - target) ** 2).sum()
            first = float(loss.detach()) if first is None else first
            loss.backward()
            tuned.step()
        change = (weight.detach() - start).reshape(-1, *shape[-2:])
        best = torch.linalg.svd((target - start).reshape(-1, *shape[-2:]))
        nearest = best.U[..., :2] @ torch.diag_embed(best.S[..., :2]) @ best.Vh[..., :2, :]
        assert float((change - nearest).abs().max()) < 0.05, "the nearest matrix of rank 2"


def test_a_plateau_halves_the_rate_and_ends_the_training():
    assert plateaus([3, 2, 1, 1, 1], 2) == 1
    assert plateaus([3, 2, 1, 1, 1, 1, 1, 0.5], 2) == 2
    assert plateaus([3, 2, 1], 2) == 0
    assert is_stalled([3, 2, 2, 2], 2)
    assert not is_stalled([3, 2, 2, 1], 2)
    assert not is_stalled([3, 3, 3], 0)
    model = teacher()
    choose_weights(model, "head")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"energies"}
