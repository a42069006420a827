"""What a model knows beside configuration and weights: one list for all who keep or copy models."""

from typing import Any, NamedTuple

from so3k_md.physical_stages import COULOMB, CUTOFF_LR


class Facts(NamedTuple):
    """Attributes of the model and of its exported file, entries of its checkpoint."""

    elements: list[int]  # atomic numbers that it knows
    metadata: str = "{}"  # JSON: what training, import and export say of it
    singlets_only: bool = False  # it was never trained with unpaired electrons
    energy_shift: float = 0.0  # that the original program adds to each atom and this one does not, eV
    coulomb: str = COULOMB[0]
    cutoff_lr: float = CUTOFF_LR  # Å


def facts_of(model: Any) -> Facts:
    """The facts of a model, eager or exported."""
    return Facts(*(getattr(model, name) for name in Facts._fields))


def set_facts(model: Any, facts: Facts) -> None:
    """Give a model these facts, in place."""
    for name, value in facts._asdict().items():
        setattr(model, name, value)
