"""Names of the attributes and stages of an exported file; readers in Python and C++ use the same names."""

from typing import Any

from so3k_md.checkpoint import EXTRA_FILE, KERNEL_FILES
from so3k_md.needs import FORMAT_VERSION, needs_of

__all__ = ["ATTRIBUTES", "EXTRA_FILE", "FORMAT_VERSION", "KERNEL_FILES", "NONLOCAL_STAGES", "STAGES"]

ATTRIBUTES = ["needs", "form"]
# Part of an exported file -> its stages that engines call. All layers have the stages of layer 0.
STAGES = {
    "": ["forward", "gradient"],
    "representation": ["edges", "embed", "initial_chi"],
    "representation.layers.0": ["attend", "update"],
    "energies": ["readout", "close_repulsion"],
    # these are None in models without total charge and spin, or without electrostatics and dispersion
    "representation.charge_and_spin": ["affinities", "shares"],
    "energies.physics": ["raw_charges", "ratios", "conserved", "self_derivatives", "open_derivatives"],
    "energies.physics.long_pairs": ["forward"],
    "energies.physics.lattice_sum": ["sums", "read", "virials"],
}
# The same for each kind of non-local attention.
NONLOCAL_STAGES: dict[str, dict[str, list[str]]] = {
    "none": {},
    "sphc": {
        "representation.reach": ["group_rows"],
        "representation.layers.0": ["tiles", "sphc_attend", "sphc_pairs"],
    },
    "efa": {
        "representation.reach": ["waves", "signed", "support", "diameter"],
        "representation.layers.0.efa": ["forward", "sums", "read"],
    },
}


def part(model: Any, path: str) -> Any:
    """A part of a model by its path; None if the model does not have it."""
    for name in path.split(".") if path else []:
        model = getattr(model, name, None)
    return model


def missing(model: Any) -> list[str]:
    """The attributes and stages of this format that a model lacks."""
    absent = [name for name in ATTRIBUTES if not hasattr(model, name)]
    if absent:
        return absent
    needs = needs_of(model)
    optional = {
        "representation.charge_and_spin",
        *(path for path in STAGES if path.startswith("energies.physics")),
    }
    if needs.has_long_range:
        optional = {"representation.charge_and_spin"}
    wanted = [
        (path, stage)
        for table in (STAGES, NONLOCAL_STAGES[needs.nonlocal_kind])
        for path in table
        for stage in table[path]
    ]
    return [
        f"{path}.{stage}".lstrip(".")
        for path, stage in wanted
        if not (path in optional and part(model, path) is None) and not hasattr(part(model, path), stage)
    ]
