"""Compares a model with reference labels: predictions, errors, and files of both."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from so3k_md.data.batches import LARGEST_BATCH, graph_of, in_chunks, pairs_of
from so3k_md.data.frames import Frame, require_elements
from so3k_md.data.keys import warn_unused_charge_state
from so3k_md.data.references import warn_incomparable
from so3k_md.data.statistics import fit_statistics
from so3k_md.data.write import write_extxyz
from so3k_md.errors import So3kError
from so3k_md.files import atomic
from so3k_md.graph import COULOMB, CUTOFF_LR, PARTS, collate, to_device
from so3k_md.model.forces import Evaluation, evaluate, on_cpu
from so3k_md.needs import needs_of
from so3k_md.structure.coulomb import check_coulomb
from so3k_md.structure.groups import check_mode

Floats = NDArray[np.float64]

UNITS = {"energy": "eV", "energy_per_atom": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
CHARGE_UNITS = {"dipole": "e Å", "charges": "e", "hirshfeld_ratios": ""}
PICTURES = {
    "energy": "energy − fitted atomic energies",
    "forces": "force component",
    "stress": "stress component",
}


class Prediction(NamedTuple):
    """Predictions of a model for one structure."""

    energy: float  # eV
    energies: Floats  # (n,), of each atom, eV
    forces: Floats  # (n, 3), eV/Å
    stress: Floats | None  # (3, 3), eV/Å³, positive = tension; only where periodic
    physics: "Physics | None" = None  # of models with electrostatics and dispersion


class Physics(NamedTuple):
    """Charges, Hirshfeld ratios, dipole and parts of the energy of one structure."""

    charges: Floats  # (n,), e
    hirshfeld_ratios: Floats  # (n,)
    dipole: Floats  # (3,), Σ q r, e Å
    energy_parts: dict[str, float]  # eV, by the names of `graph.PARTS`


class Score(NamedTuple):
    """Errors of one quantity over all frames that have its reference."""

    mae: float
    rmse: float
    frames: int  # frames with this reference
    values: int  # numbers compared


def predict(
    model: nn.Module,
    frames: Sequence[Frame],
    batch_size: int = 16,
    progress: Callable[[Iterable[Frame]], Iterable[Frame]] = iter,
    groups: str = "auto",
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
) -> list[Prediction]:
    """Energies, forces and stress of every frame.

    Args:
        model: eager or exported, with `cutoff` and `elements`.
        frames: structures, with or without labels.
        batch_size: largest number of frames in a batch; large frames come in smaller batches.
        progress: wraps the frames, as tqdm does.
        groups: for non-local models: auto, the groups of each frame, or all.
        coulomb: for models with electrostatics, one of COULOMB.
        cutoff_lr: of dispersion and of the shifted forms, Å.

    Raises:
        So3kError: an element that the model does not know, two atoms at the same position, groups that are
            missing or too wide for the model, or a result that is not finite.
    """
    check_mode(groups)
    check_coulomb(coulomb, cutoff_lr)
    needs = needs_of(model)
    require_elements(frames, needs.elements)
    facts = json.loads(needs.metadata)
    for composition in {tuple(np.sort(frame.numbers).tolist()) for frame in frames}:
        warn_incomparable(composition, facts)
    warn_unused_charge_state(frames, needs.has_charge_state)
    device = next(model.parameters()).device
    predictions: list[Prediction] = []
    settings = needs, model, groups, coulomb, cutoff_lr
    items = ((frame, graph_of(frame, *settings)) for frame in progress(frames))
    for chunk in in_chunks(items, lambda item: pairs_of(item[1]), batch_size, LARGEST_BATCH):
        graph = to_device(collate([graph for _, graph in chunk]), device)
        found = on_cpu(evaluate(model, graph, len(chunk)))
        predictions += _split([frame for frame, _ in chunk], found)
    return predictions


def score(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> dict[str, Score | None]:
    """Mean absolute and root mean square errors; None where no frame has the reference.

    Energy errors count each frame once, other errors each component once. Dipole, charges and Hirshfeld
    ratios are there if a frame has references and the model predicts them.
    """
    pairs = list(zip(frames, predictions, strict=True))
    energy = [(p.energy - f.energy, len(f.numbers)) for f, p in pairs if f.energy is not None]
    return {
        "energy": score_of([np.array([error]) for error, _ in energy]),
        "energy_per_atom": score_of([np.array([error / n]) for error, n in energy]),
        "forces": score_of([p.forces - f.forces for f, p in pairs if f.forces is not None]),
        "stress": score_of(
            [p.stress - f.stress for f, p in pairs if f.stress is not None and p.stress is not None]
        ),
    } | _score_charges(pairs)


def _score_charges(pairs: Sequence[tuple[Frame, Prediction]]) -> dict[str, Score | None]:
    """Errors of the quantities that follow from charges and volumes, as far as there are references."""
    found = {}
    for name in CHARGE_UNITS:
        known = [(getattr(f, name), getattr(p.physics, name)) for f, p in pairs if p.physics is not None]
        if errors := [predicted - reference for reference, predicted in known if reference is not None]:
            found[name] = score_of(errors)
    return found


def table(scores: dict[str, Score | None]) -> str:
    """The scores as text, in meV."""
    lines = [f"{'quantity':<16}{'MAE':>13} {'RMSE':>13}  {'unit':<10}over"]
    for name, result in scores.items():
        label = name.replace("_", " ")
        if result is None:
            lines.append(f"{label:<16}{'-':>13} {'-':>13}  {'':<10}no reference")
            continue
        numbers = f"{1e3 * result.mae:>13.4f} {1e3 * result.rmse:>13.4f}"
        count = f"{result.frames} frames" + (
            f", {result.values} components" if result.values > result.frames else ""
        )
        unit = f"m{(UNITS | CHARGE_UNITS)[name]}" if name != "hirshfeld_ratios" else "1/1000"
        lines.append(f"{label:<16}{numbers}  {unit:<10}{count}")
    return "\n".join(lines)


def to_document(
    frames: Sequence[Frame], predictions: Sequence[Prediction], scores: dict[str, Score | None]
) -> dict[str, Any]:
    """Scores and per-frame arrays as plain values, in eV and Å; None for unknown values."""
    pairs = list(zip(frames, predictions, strict=True))
    errors = [None if f.forces is None else p.forces - f.forces for f, p in pairs]
    return {
        "n_frames": len(frames),
        "n_atoms": sum(len(frame.numbers) for frame in frames),
        "units": UNITS,
        "metrics": {name: None if result is None else result._asdict() for name, result in scores.items()},
        "frames": {
            "frame": [frame.place for frame in frames],
            "n_atoms": [len(frame.numbers) for frame in frames],
            "periodic": [bool(frame.pbc.any()) for frame in frames],
            "energy_reference": [frame.energy for frame in frames],
            "energy_predicted": [prediction.energy for prediction in predictions],
            "forces_mae": [None if e is None else float(np.abs(e).mean()) for e in errors],
            "forces_rmse": [None if e is None else float(np.sqrt((e * e).mean())) for e in errors],
            "forces_max": [None if e is None else float(np.abs(e).max()) for e in errors],
            "stress_reference": [None if f.stress is None else f.stress.tolist() for f in frames],
            "stress_predicted": [None if p.stress is None else p.stress.tolist() for p in predictions],
            "physics": [
                None if p.physics is None else {name: _plain(v) for name, v in p.physics._asdict().items()}
                for p in predictions
            ],
        },
    }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def write_document(path: str | Path, document: dict[str, Any]) -> None:
    """Write a document as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8"
        )


def write_predictions(path: str | Path, frames: Sequence[Frame], predictions: Sequence[Prediction]) -> None:
    """Write predictions as extended XYZ in full precision: energy, forces, stress (periodic) and energies.

    Keys that the frames keep are written too; those with the name of a prediction as `reference_KEY`.
    """
    write_extxyz(
        path,
        (
            (
                frame,
                {"frame": frame.place, "energy": found.energy}
                | ({} if found.stress is None else {"stress": found.stress})
                | ({} if found.physics is None else _of_frame(found.physics)),
                {"forces": found.forces, "energies": found.energies}
                | ({} if found.physics is None else _of_atoms(found.physics)),
            )
            for frame, found in zip(frames, predictions, strict=True)
        ),
    )


def _of_frame(physics: Physics) -> dict[str, Any]:
    return {"dipole": physics.dipole} | {
        f"energy_{name}": energy for name, energy in physics.energy_parts.items()
    }


def _of_atoms(physics: Physics) -> dict[str, Floats]:
    return {"charges": physics.charges, "hirshfeld_ratios": physics.hirshfeld_ratios}


def write_parity_plots(
    folder: str | Path, frames: Sequence[Frame], predictions: Sequence[Prediction]
) -> list[Path]:
    """Draw predicted against reference values, one picture for each quantity that has references.

    The atomic energies that fit the references best are subtracted from all energies, because they would hide
    the differences.

    Args:
        folder: created if it does not exist.
        frames: structures with their references.
        predictions: of the same frames.

    Returns:
        The pictures, parity_QUANTITY.png.
    """
    points: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in PICTURES}
    shift = fit_statistics(frames).shift if any(frame.energy is not None for frame in frames) else {}
    for frame, found in zip(frames, predictions, strict=True):
        if frame.energy is not None:
            atoms = sum(shift[int(z)] for z in frame.numbers)
            points["energy"].append((np.array([frame.energy - atoms]), np.array([found.energy - atoms])))
        if frame.forces is not None:
            points["forces"].append((frame.forces.ravel(), found.forces.ravel()))
        if frame.stress is not None and found.stress is not None:
            points["stress"].append((frame.stress.ravel(), found.stress.ravel()))
    written = []
    for name, values in points.items():
        if values:
            Path(folder).mkdir(exist_ok=True)
            reference, predicted = (np.concatenate(part) for part in zip(*values, strict=True))
            path = Path(folder) / f"parity_{name}.png"
            _draw_parity(path, reference, predicted, PICTURES[name], UNITS[name])
            written.append(path)
    return written


def _split(frames: Sequence[Frame], found: Evaluation) -> Iterator[Prediction]:
    """The results of a batch, frame by frame."""
    ends = np.cumsum([len(frame.numbers) for frame in frames])
    for k, frame in enumerate(frames):
        atoms = slice(ends[k] - len(frame.numbers), ends[k])
        energy, forces = float(found.energy[k]), found.forces[atoms].numpy()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise So3kError(
                f"{frame.where}: the model gives no finite energy and forces; check model and positions"
            )
        stress = None if frame.volume is None else -found.virial[k].numpy() / frame.volume
        physics = None
        outputs = found.outputs
        if len(outputs.charges):
            charges = outputs.charges[atoms].double().numpy()
            parts = dict(zip(PARTS, outputs.parts[atoms].sum(0).tolist(), strict=True))
            ratios = outputs.ratios[atoms].double().numpy()
            physics = Physics(charges, ratios, charges @ frame.positions, parts)
        yield Prediction(energy, outputs.energies[atoms].numpy(), forces, stress, physics)


def score_of(errors: Sequence[Floats]) -> Score | None:
    """Errors over all components of all frames; None without frames."""
    if not errors:
        return None
    joined = np.concatenate([error.reshape(-1) for error in errors])
    rmse = float(np.sqrt((joined * joined).mean()))
    return Score(float(np.abs(joined).mean()), rmse, len(errors), len(joined))


def _draw_parity(path: Path, reference: Floats, predicted: Floats, what: str, unit: str) -> None:
    """One picture, with equal axes and the errors in its title."""
    from matplotlib.figure import Figure  # imported here because evaluation does not need this extra

    error = predicted - reference
    mae, rmse = 1e3 * np.abs(error).mean(), 1e3 * np.sqrt((error * error).mean())
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(reference, predicted, ".", markersize=3, alpha=0.5, color="tab:blue", rasterized=True)
    axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
    limits = axes.axis()
    axes.set(xlim=(min(limits), max(limits)), ylim=(min(limits), max(limits)), aspect="equal")
    axes.set(xlabel=f"reference {what} / {unit}", ylabel=f"predicted {what} / {unit}")
    axes.set_title(f"MAE {mae:.3g}, RMSE {rmse:.3g} m{unit}")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
