"""Checks that a model knows the elements of a structure."""

from collections.abc import Iterable

from ase.data import chemical_symbols

from so3k_md.errors import So3kError


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
