"""The words that the exported file and its readers share; the C++ side uses the same ones."""

from collections.abc import Iterable

from ase.data import chemical_symbols

from so3k_md.checkpoint import EXTRA_FILE
from so3k_md.errors import So3kError
from so3k_md.facts import Facts
from so3k_md.model import FORMAT_VERSION

__all__ = ["ATTRIBUTES", "EXTRA_FILE", "FORMAT_VERSION", "KERNEL_FILE", "STAGES", "check_elements"]

STAGES = [
    "geometry",
    "embed",
    "initial_chi",
    "attend",
    "update",
    "affinities",
    "shares",
    "close_repulsion",
    "readout",
    "raw_charges",
    "conserved",
    "ratios",
    "long_slopes",
    "self_slopes",
    "wave_sums",
    "wave_slopes",
    "wave_virials",
    "open_slopes",
    "gradient",
    "group_rows",
    "tiles",
    "far_pairs",
    "far_attend",
    "waves",
    "far_whole",
    "far_sums",
    "far_read",
    "support",
    "diameter",
]
ATTRIBUTES = [
    *Facts._fields,
    "cutoff",
    "n_layers",
    "features",
    "chi_width",
    "chi_from_neighbours",
    "nonlocal_kind",
    "far_reach",
    "has_totals",
    "has_zbl",
    "has_long_range",
    "format_version",
]
# the same model without weights, calling the compiled kernels; another name whenever their calls change
KERNEL_FILE = "so3k_kernels.4.pt"


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
