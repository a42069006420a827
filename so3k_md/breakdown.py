"""Errors of a model by element, by composition, and by a key of the frames such as `config_type`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols

from so3k_md.data.frames import Frame, list_keys
from so3k_md.errors import So3kError
from so3k_md.evaluate import UNITS, Prediction, Score, score, score_of

KEY = "config_type"  # of many data sets: the kind of each frame
SHOWN = ("energy_per_atom", "forces", "stress")
MOST_ROWS = 20  # of a table


class Breakdown(NamedTuple):
    """Errors of parts of the data."""

    what: str  # element, composition, or the key of the frames
    frames: dict[str, int]  # part -> frames in it, most first
    scores: dict[str, dict[str, Score | None]]  # part -> quantity -> error


def by_element(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> Breakdown:
    """Errors of the forces on the atoms of each element."""
    pairs = list(zip(frames, predictions, strict=True))
    counts = dict[str, int]()
    scores = dict[str, dict[str, Score | None]]()
    for z in sorted({int(z) for frame in frames for z in np.unique(frame.numbers)}):
        of_atoms = [(p.forces - f.forces)[f.numbers == z] for f, p in pairs if f.forces is not None]
        counts[chemical_symbols[z]] = sum(bool((frame.numbers == z).any()) for frame in frames)
        scores[chemical_symbols[z]] = {"forces": score_of([errors for errors in of_atoms if errors.size])}
    return Breakdown("element", _sorted(counts), scores)


def by_composition(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> Breakdown:
    """Errors of the frames of each composition, such as C2H6O."""
    return _by(
        "composition", lambda frame: Symbols(frame.numbers).get_chemical_formula(), frames, predictions
    )


def by_key(key: str, frames: Sequence[Frame], predictions: Sequence[Prediction]) -> Breakdown:
    """Errors of the frames with each value of a key, and of those without it.

    Args:
        key: of the frames, such as config_type.
        frames: read with `keep`.
        predictions: of the same frames.
    """
    return _by(key, lambda frame: str(frame.kept.values.get(key, f"no {key}")), frames, predictions)


def require_key(key: str, frames: Sequence[Frame]) -> None:
    """Refuse a key that no frame has.

    Raises:
        So3kError: lists the keys of the frames.
    """
    if not has_key(key, frames):
        present = {name for frame in frames for name in frame.kept.values}
        raise So3kError(f"no frame has the key '{key}'; keys of the frames: {list_keys(present)}")


def has_key(key: str, frames: Sequence[Frame]) -> bool:
    """Whether a frame has a value under a key."""
    return any(key in frame.kept.values for frame in frames)


def table_of(breakdown: Breakdown) -> str:
    """The errors as text, in meV: those parts first that have the most frames."""
    scores = breakdown.scores
    shown = [name for name in SHOWN if any(found.get(name) for found in scores.values())]
    if not shown:
        return ""
    parts = list(breakdown.frames)
    width = max(len(text) for text in (breakdown.what, *parts[:MOST_ROWS])) + 2
    titles = [f"{name.replace('_', ' ')} / m{UNITS[name]}" for name in shown]
    lines = [f"{breakdown.what:<{width}}{'':>7}" + "".join(f"  {title:>22}" for title in titles)]
    lines.append(f"{'':<{width}}{'frames':>7}" + f"  {'MAE':>11}{'RMSE':>11}" * len(shown))
    for part in parts[:MOST_ROWS]:
        cells = [_cell(scores[part].get(name)) for name in shown]
        lines.append(f"{part:<{width}}{breakdown.frames[part]:>7}{''.join(cells)}")
    if len(parts) > MOST_ROWS:
        lines.append(f"and {len(parts) - MOST_ROWS} more, which --json writes")
    return "\n".join(lines)


def to_document(breakdown: Breakdown) -> dict[str, Any]:
    """The errors as plain values, in eV and Å."""
    return {
        part: {"frames": breakdown.frames[part]}
        | {name: None if found is None else found._asdict() for name, found in breakdown.scores[part].items()}
        for part in breakdown.frames
    }


def _by(
    what: str,
    part_of: Callable[[Frame], str],
    frames: Sequence[Frame],
    predictions: Sequence[Prediction],
) -> Breakdown:
    """All errors of the frames of each part."""
    members = dict[str, list[int]]()
    for k, frame in enumerate(frames):
        members.setdefault(part_of(frame), []).append(k)
    scores = {
        part: score([frames[k] for k in chosen], [predictions[k] for k in chosen])
        for part, chosen in members.items()
    }
    return Breakdown(what, _sorted({part: len(chosen) for part, chosen in members.items()}), scores)


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    """The counts, largest first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _cell(found: Score | None) -> str:
    """Two numbers of a table."""
    if found is None:
        return f"  {'-':>11}{'-':>11}"
    return f"  {1e3 * found.mae:>11.4f}{1e3 * found.rmse:>11.4f}"
