"""Fine-tuning: the usual settings for it, and a table of errors before and after."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from so3k_md.data import Frame
from so3k_md.evaluate import Prediction, Score, predict, score
from so3k_md.train.config import RunConfig, Sections, from_sections, override
from so3k_md.train.start import element_errors

# Learning rates, by strategy: the fewer weights change, the faster they may.
RATES = {"full": 1e-3, "lora": 3e-3, "first": 1e-3, "last": 1e-3, "head": 3e-3}
LEAST_STEPS = 2000  # steps of a short training; few frames are passed more often
USUAL: Sections = {
    "loss": {"energy": 0.03, "forces": 0.97},
    "train": {
        "batch_size": 5,
        "optimizer": "adamw",
        "final_learning_rate": 1e-5,
        "decay": "cosine",
        "warmup_steps": 50,
        "ema": 0.99,
        "patience": 40,
        "tensorboard": False,
    },
}


def finetune_config(model: str, data: str, n_frames: int, arguments: Sequence[str] = ()) -> RunConfig:
    """The settings of a fine-tuning, which arguments `section.key=value` change.

    A tenth of the frames, at least one and at most 200, is for validation, unless `data` is set otherwise.

    Args:
        model: checkpoint, exported file or bundled model.
        data: file of frames.
        n_frames: their number.
        arguments: settings.

    Raises:
        So3kError: names the key and the nearest known one.
    """
    asked = override({"data": {"train": data}, **USUAL, "start": {"model": model}}, arguments)
    if asked["data"].keys().isdisjoint({"valid", "n_valid", "train_indices"}):
        asked["data"]["n_valid"] = min(200, max(1, n_frames // 10))
    n_train = asked["data"].get("n_train") or n_frames - (asked["data"].get("n_valid") or 0)
    steps_per_epoch = max(1.0, n_train / asked["train"]["batch_size"])
    asked["train"].setdefault("epochs", max(10, round(LEAST_STEPS / steps_per_epoch)))
    strategy = str(asked["start"].get("strategy", "full"))
    asked["train"].setdefault("learning_rate", RATES.get(strategy, RATES["full"]))
    return from_sections(asked)


class Comparison(NamedTuple):
    """Errors on one set of frames, before and after."""

    name: str
    before: Mapping[str, Score | None]
    after: Mapping[str, Score | None]


def compare(before: nn.Module, after: nn.Module, sets: Mapping[str, Sequence[Frame]]) -> list[Comparison]:
    """Errors of two models on sets of frames, each with the element energies that fit the set best.

    Args:
        before: the start.
        after: the fine-tuned model.
        sets: frames by the name of the set.
    """

    def errors(model: nn.Module, frames: Sequence[Frame]) -> dict[str, Score | None]:
        return score(frames, fitted(frames, predict(model, frames)))

    return [Comparison(name, errors(before, frames), errors(after, frames)) for name, frames in sets.items()]


def fitted(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions whose energies have the element energies that fit the frames best.

    The element energies of another level of theory would hide the other errors.
    """
    change = element_errors(frames, predictions)
    return [
        found._replace(energy=found.energy + sum(change.get(z, 0.0) for z in frame.numbers.tolist()))
        for frame, found in zip(frames, predictions, strict=True)
    ]


def table(comparisons: Sequence[Comparison]) -> str:
    """Mean absolute errors as text, in meV, Å and 10⁻³ e."""
    lines = [f"{'frames':<24}{'quantity':<18}{'before':>10}{'after':>10}  unit"]
    for name, before, after in comparisons:
        for quantity, first in before.items():
            last = after[quantity]
            if first is None or last is None or quantity == "energy":
                continue
            numbers = f"{1e3 * first.mae:>10.2f}{1e3 * last.mae:>10.2f}"
            lines.append(f"{name:<24}{quantity.replace('_', ' '):<18}{numbers}  {SHOWN[quantity]}")
    return "\n".join(lines)


SHOWN = {
    "energy_per_atom": "meV/atom",
    "forces": "meV/Å",
    "stress": "meV/Å³",
    "dipole": "10⁻³ e Å",
    "charges": "10⁻³ e",
    "hirshfeld_ratios": "10⁻³",
}
