"""Converts the settings of a so3krates-torch or mlff model to keys of `ModelConfig`, or refuses them."""

from collections.abc import Callable, Mapping
from typing import Any

from so3k_md.convert.bounds import PLAIN, brief
from so3k_md.convert.names import N_SPECIES
from so3k_md.errors import So3kError

# Factor of α by the mean number of neighbors; none for 1/sqrt(width of a head).
SCALES: dict[str, Callable[[float], float | None]] = {
    "avg_num_neighbors": lambda neighbors: 1.0 / neighbors,
    "identity": lambda _: 1.0,
    "sqrt_num_features": lambda _: None,
}
CUTOFFS = {"phys": "physnet", "cosine": "cosine"}
SWITCHES = {
    "use_charge_embed": "charge_embedding",
    "use_spin_embed": "spin_embedding",
    "zbl_repulsion_bool": "zbl",
    "electrostatic_energy_bool": "electrostatics",
    "dispersion_energy_bool": "dispersion",
}

# Settings with fixed values in so3k-md; the first value is that of a missing setting.
FIXED: dict[str, tuple[Any, ...]] = {
    "radial_basis_fn": ("bernstein",),
    "trainable_rbf": (False,),
    "activation_fn": ("silu",),
    "energy_activation_fn": ("silu",),
    "qk_non_linearity": ("identity",),
    "residual_mlp_2": (False,),
    "initialize_ev_to_zeros": (True,),
    "interaction_bias": (True,),
    "final_mlp_layers": (2,),
    "num_elements": (118,),
    "input_convention": ("positions",),
    "layers_behave_like_identity_fn_at_init": (False, True),
    "output_is_zero_at_init": (False, True),
    "electrostatic_energy_scale": (4.0,),
    "dispersion_energy_scale": (1.2,),
    "dispersion_energy_cutoff_lr_damping": (None, 2.0),
    "use_pme": (False,),
}
PAIRS = (
    ("layer_normalization_1", "layer_normalization_2"),
    ("electrostatic_energy_bool", "dispersion_energy_bool"),
)
COUNTS = ("num_features", "num_heads", "num_layers", "num_radial_basis_fn")
LENGTHS = ("r_max", "avg_num_neighbors")
READ = {
    "r_max",
    "num_radial_basis_fn",
    "degrees",
    "num_features",
    "num_heads",
    "num_layers",
    "avg_num_neighbors",
    "message_normalization",
    "cutoff_fn",
    "layer_normalization_1",
    "layer_normalization_2",
    "residual_mlp_1",
    "use_charge_embed",
    "use_spin_embed",
}
# Settings without influence on predictions: of training, of the machine, or choices of the user.
IDLE = {
    "atomic_type_shifts",
    "avg_num_neighbors_param",
    "cutoff_p",
    "device",
    "dtype",
    "embedding_scale",
    "energy_learn_atomic_type_scales",
    "energy_learn_atomic_type_shifts",
    "energy_regression_dim",
    "is_lammps",
    "neighborlist_format_lr",
    "num_embeddings",
    "num_features_head",
    "r_max_lr",
    "seed",
    "training",
    "use_lr",
}


def of_module(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the attributes of a so3krates-torch model."""
    settings = {name: value for name, value in state.items() if not name.startswith("_")}
    for name in ("cutoff_fn", "activation_fn", "energy_activation_fn"):
        settings[name] = settings.pop(f"{name}_name", None)
    return settings


def of_hyperparameters(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a hyperparameters.json of mlff."""
    settings = dict(document["model"])
    settings["r_max"] = settings.pop("cutoff", None)
    settings["r_max_lr"] = settings.pop("cutoff_lr", None)
    settings["avg_num_neighbors"] = document["data"]["avg_num_neighbors"]
    return settings


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that a model of so3k-md cannot have.

    Raises:
        So3kError: a setting is missing, has a value other than the possible ones, or is unknown and in use.
    """
    for name in sorted(READ):
        if settings.get(name) is None:
            raise So3kError(f"does not state its {name}")
    for name in COUNTS:
        if type(settings[name]) is not int or settings[name] < 1:
            raise So3kError(f"has {name} = {brief(settings[name])}, where a whole number is needed")
    for name in LENGTHS:
        value = settings[name]
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise So3kError(f"has {name} = {brief(value)}, where a positive number is needed")
    degrees = settings["degrees"]
    if not isinstance(degrees, list | tuple) or not all(type(degree) is int for degree in degrees):
        raise So3kError(f"has degrees = {brief(degrees)}, where a list of whole numbers is needed")
    for name in sorted(SWITCHES | dict.fromkeys(name for pair in PAIRS for name in pair)):
        if not isinstance(settings.get(name), bool | None):
            raise So3kError(f"has {name} = {brief(settings[name])}, where true or false is needed")
    for name, allowed in FIXED.items():
        value = settings.get(name, allowed[0])
        if not isinstance(value, PLAIN) or value not in allowed:
            raise So3kError(f"has {name} = {brief(value)}, but so3k-md supports only {allowed[-1]}")
    for first, second in PAIRS:
        if bool(settings.get(first)) != bool(settings.get(second)):
            raise So3kError(f"has only one of {first} and {second}, but so3k-md supports both or none")
    for name, known in (("cutoff_fn", CUTOFFS), ("message_normalization", SCALES)):
        if not isinstance(settings[name], str) or settings[name] not in known:
            choices = ", ".join(known)
            raise So3kError(f"has {name} = {brief(settings[name])}, but so3k-md supports only {choices}")
    for name, value in settings.items():
        # integers and tensors are values that a model keeps from its last structure
        in_use = isinstance(value, bool | str | float) and bool(value)
        if in_use and name not in READ | IDLE | set(FIXED) | set(SWITCHES):
            raise So3kError(f"has the setting {brief(name)} = {brief(value)}, which so3k-md does not know")


def model_config(settings: Mapping[str, Any], radial_hidden: int, chi_hidden: int) -> dict[str, Any]:
    """The keys of `ModelConfig` for checked settings.

    Args:
        settings: as of so3krates-torch.
        radial_hidden: hidden width of the radial filters, read off the weights.
        chi_hidden: hidden width of the spherical filters, read off the weights.
    """
    return {
        "features": settings["num_features"],
        "layers": settings["num_layers"],
        "heads": settings["num_heads"],
        "degrees": list(settings["degrees"]),
        "cutoff": settings["r_max"],
        "cutoff_function": CUTOFFS[settings["cutoff_fn"]],
        "radial_basis": "bernstein",
        "n_rbf": settings["num_radial_basis_fn"],
        "damp_rbf": False,
        "radial_hidden": radial_hidden,
        "chi_hidden": chi_hidden,
        "direction": "to_neighbour",
        "chi_start": "zeros",
        "chi_invariant": "squared",
        "attention_bias": False,
        "attention_scale": SCALES[settings["message_normalization"]](settings["avg_num_neighbors"]),
        "interaction": "linear",
        "layer_norm": settings["layer_normalization_1"],
        "residual_mlp": settings["residual_mlp_1"],
        "n_species": N_SPECIES,
    } | {ours: bool(settings.get(theirs)) for theirs, ours in SWITCHES.items()}
