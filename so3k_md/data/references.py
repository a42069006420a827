"""Element energies, and the compositions whose energies can be compared with them."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike

from so3k_md.data.frames import Frame
from so3k_md.errors import So3kError, So3kWarning

ABSOLUTE = ("isolated atoms", "given")  # sources of element energies that are valid for any composition


def is_isolated(frame: Frame) -> bool:
    """Whether a frame is one atom without neighbors, not even images, and has an energy."""
    return len(frame.numbers) == 1 and not frame.pbc.any() and frame.energy is not None


def isolated_energies(frames: Iterable[Frame]) -> dict[int, float]:
    """Energies of isolated atoms by atomic number, eV; the lowest if an element has several.

    Args:
        frames: those with more atoms or periodic axes are ignored.
    """
    found: dict[int, float] = {}
    for frame in frames:
        if is_isolated(frame):
            z = int(frame.numbers[0])
            found[z] = min(float(frame.energy or 0.0), found.get(z, np.inf))
    return found


def by_symbol(energies: Mapping[str, float]) -> dict[int, float]:
    """Energies by atomic number from those by chemical symbol, eV.

    Raises:
        So3kError: no such element.
    """
    for symbol in energies:
        if symbol not in atomic_numbers or symbol == "X":
            raise So3kError(f"data.element_energies has {symbol!r}, which is not an element: correct it")
    return {atomic_numbers[symbol]: float(energy) for symbol, energy in energies.items()}


def describe_references(frames: Sequence[Frame], source: str) -> dict[str, Any]:
    """The metadata of a model about its element energies: their source and the compositions of the fit.

    Args:
        frames: all frames whose energies were used.
        source: isolated atoms, given, fit, mean or none.

    Returns:
        `source`, `elements` (atomic numbers) and `compositions`: linearly independent counts of these
        elements. Energies of linear combinations of these compositions can be compared.
    """
    numbers = [frame.numbers for frame in frames if frame.energy is not None]
    elements = sorted({int(z) for each in numbers for z in each})
    counts = np.unique([[int((each == z).sum()) for z in elements] for each in numbers], axis=0)
    independent: list[list[int]] = []
    for row in counts:
        if np.linalg.matrix_rank([*independent, row.tolist()]) > len(independent):
            independent.append([int(count) for count in row])
        if len(independent) == len(elements):
            break
    return {"source": source, "elements": elements, "compositions": independent}


def comparable(numbers: ArrayLike, metadata: Mapping[str, Any]) -> bool:
    """Whether the energy of a composition can be compared with those of others.

    It can if the element energies are given or those of isolated atoms, or if the composition is a linear
    combination of those of the fit. For models without this metadata it is assumed.

    Args:
        numbers: atomic numbers (n,), 0 for virtual sites.
        metadata: of a model, with `references` of `describe_references`.
    """
    known = metadata.get("references")
    if not known or known["source"] in ABSOLUTE:
        return True
    z = np.asarray(numbers)
    count = np.array([(z == element).sum() for element in known["elements"]], dtype=float)
    if count.sum() < (z > 0).sum():
        return False
    basis = np.array(known["compositions"], dtype=float).T
    if not basis.size:
        return False
    residual = count - basis @ np.linalg.lstsq(basis, count, rcond=None)[0]
    return bool(np.linalg.norm(residual) < 1e-6 * max(1.0, float(np.linalg.norm(count))))


def warn_incomparable(numbers: ArrayLike, metadata: Mapping[str, Any]) -> None:
    """Warn of an energy that contains a constant which the training data do not determine.

    Args:
        numbers: see `comparable`.
        metadata: see there.
    """
    if comparable(numbers, metadata):
        return
    known = metadata["references"]
    symbols = [chemical_symbols[z] for z in known["elements"]]
    trained = [formula(dict(zip(symbols, row, strict=True))) for row in known["compositions"]]
    z = np.asarray(numbers)
    given = formula({chemical_symbols[k]: int((z == k).sum()) for k in np.unique(z[z > 0])})
    warnings.warn(
        f"the energy of {given} contains an arbitrary constant: the element energies of this model were "
        f"fitted to {', '.join(trained[:6])} only. Compare structures of one composition only, or train with "
        "isolated atoms (data.isolated_atoms) or data.element_energies; forces are not affected",
        So3kWarning,
        stacklevel=3,
    )


def formula(counts: Mapping[str, int]) -> str:
    """A sum formula in Hill's order: C and H first."""
    order = sorted(counts, key=lambda symbol: (symbol != "C", symbol != "H", symbol))
    return "".join(
        f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order if counts[symbol]
    )
