"""What a model needs of a structure, read off the model in one place."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ase.data import chemical_symbols

from so3k_md.errors import So3kError

FAR_NUMBERS = 6  # numbers that the gradient of sphc holds for a pair, in units of F (measured)


class Needs(NamedTuple):
    """What decides which structures a model accepts and how their graph is made."""

    cutoff: float  # Å
    elements: tuple[int, ...] | None = None  # atomic numbers that it knows; None for any
    nonlocal_kind: str = "none"  # none, sphc or efa
    far_reach: float = 0.0  # Å, of the waves of efa; 0 where they are those of the lattice
    has_totals: bool = False  # charge and spin enter
    has_long_range: bool = False  # pairs beyond the cutoff enter
    singlets_only: bool = False
    tile: int = 0  # pairs of sphc that are evaluated at a time, at most
    pair_bytes: int = 0  # that its gradient holds for each of them


def needs_of(model: Any) -> Needs:
    """The needs of a model.

    Args:
        model: eager or exported.
    """
    tiled = model.nonlocal_kind == "sphc"
    width = next(model.parameters()).element_size()
    return Needs(
        cutoff=float(model.cutoff),
        elements=tuple(int(number) for number in model.elements),
        nonlocal_kind=str(model.nonlocal_kind),
        far_reach=float(model.far_reach),
        has_totals=bool(model.has_totals),
        has_long_range=bool(model.has_long_range),
        singlets_only=bool(model.singlets_only),
        tile=int(model.tile) if tiled else 0,
        pair_bytes=FAR_NUMBERS * int(model.features) * width if tiled else 0,
    )


def check_elements(numbers: Iterable[int], elements: Iterable[int]) -> None:
    """Refuse atoms that a model was not trained for.

    Args:
        numbers: atomic numbers of the atoms.
        elements: atomic numbers that the model knows.

    Raises:
        So3kError: names the first such atom.
    """
    known = sorted(int(z) for z in elements)
    for atom, number in enumerate(numbers):
        if number not in known:
            name = chemical_symbols[number] if 0 <= number < len(chemical_symbols) else number
            raise So3kError(
                f"atom {atom} is {name}, the model knows only "
                f"{', '.join(chemical_symbols[z] for z in known)}: use a model trained with this element"
            )
