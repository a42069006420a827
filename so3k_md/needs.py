"""`Needs`: the facts about a model, besides its weights, that engines and model files must have."""

from typing import Any, NamedTuple

FORMAT_VERSION = 7  # of the exported file: its parts, their stages and the fields of `Needs`


class Needs(NamedTuple):
    """The facts about a model. An exported file returns them as a plain tuple; see `needs_of`."""

    format_version: int
    config: str  # JSON of the configuration, which determines the shape of the model
    elements: list[int]  # atomic numbers that it accepts; empty if it accepts any
    cutoff: float  # of the pairs of the layers, Å
    nonlocal_kind: str  # non-local attention: none, sphc or efa
    max_group_diameter: float  # largest allowed diameter of a group, Å; 0 for no limit
    has_charge_state: bool  # whether the energy depends on total charge and spin
    has_long_range: bool  # whether it has charges, electrostatics and dispersion
    has_zbl: bool  # whether it has the repulsion of nuclei
    n_layers: int
    features: int  # F, invariant features of each atom
    chi_width: int
    chi_from_neighbors: bool  # whether the first SPHCs are computed from the neighbors; else zeros
    singlets_only: bool = False  # whether it was trained without unpaired electrons
    energy_shift: float = 0.0  # energy per atom that the original program adds and so3k-md leaves out, eV
    metadata: str = "{}"  # JSON: facts recorded by training, import and export


# Fields that do not follow from the configuration.
GIVEN = ("elements", "singlets_only", "energy_shift", "metadata")


def needs_of_cutoff(cutoff: float) -> Needs:
    """The needs of a local model that accepts any element and has this cutoff (Å)."""
    return Needs(FORMAT_VERSION, "{}", [], cutoff, "none", 0.0, False, False, False, 0, 0, 0, False)


def needs_of(model: Any) -> Needs:
    """The needs of a model, eager or exported."""
    return Needs(*model.needs)


def with_needs(model: Any, **given: Any) -> Any:
    """The same model object, after some of its facts in GIVEN were replaced."""
    model.needs = needs_of(model)._replace(**given)
    return model
