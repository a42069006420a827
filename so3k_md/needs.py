"""What a model needs of a structure and what it is: one object in model, checkpoint and exported file."""

from typing import Any, NamedTuple

FORMAT_VERSION = 6  # of the exported file: its parts, their stages and the fields of `Needs`


class Needs(NamedTuple):
    """All that engines and files must know of a model beside its weights; of exported files a plain tuple."""

    format_version: int
    config: str  # JSON, all that decides the shape of the model
    elements: list[int]  # atomic numbers that it knows; empty for any
    cutoff: float  # of local pairs, Å
    nonlocal_kind: str  # attention within groups: none, sphc or efa
    far_reach: float  # largest diameter of a group, Å; 0 without a limit
    has_totals: bool  # whether total charge and spin matter
    has_long_range: bool  # whether there are charges, electrostatics and dispersion
    has_zbl: bool  # whether nuclei repel each other
    n_layers: int
    features: int  # F
    chi_width: int
    chi_from_neighbours: bool  # whether SPHCs begin with the neighbors, or as zeros
    singlets_only: bool = False  # it was never trained with unpaired electrons
    energy_shift: float = 0.0  # that the original program adds to each atom and this one does not, eV
    metadata: str = "{}"  # JSON: what training, import and export know of it


# What does not follow from the configuration.
GIVEN = ("elements", "singlets_only", "energy_shift", "metadata")


def needs_of_cutoff(cutoff: float) -> Needs:
    """The needs of a local model of any elements, of which the cutoff (Å) alone is known."""
    return Needs(FORMAT_VERSION, "{}", [], cutoff, "none", 0.0, False, False, False, 0, 0, 0, False)


def needs_of(model: Any) -> Needs:
    """The needs of a model, eager or exported."""
    return Needs(*model.needs)


def with_needs(model: Any, **given: Any) -> Any:
    """The same model object, of which some of GIVEN are replaced."""
    model.needs = needs_of(model)._replace(**given)
    return model
