"""Converts models of the SO3LR family, from so3krates-torch or mlff (JAX), to models of this package.

Kabylda et al., J. Am. Chem. Soc. 2025, 10.1021/jacs.5c09558.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from so3k_md.config import from_mapping
from so3k_md.convert import settings as foreign
from so3k_md.convert.bounds import MAX_MODULES, check_name
from so3k_md.convert.names import N_SPECIES, Entry, entries
from so3k_md.convert.sources import Source, find
from so3k_md.convert.unpickle import Record, read_pickle, read_torch
from so3k_md.errors import So3kError
from so3k_md.model import So3krates, set_dtype
from so3k_md.model.weights import file_weights, load_weights
from so3k_md.model_config import ModelConfig
from so3k_md.needs import with_needs

# SHA-256 of the published weights, all tensors of `entries` but the shifts, in our layout.
PUBLISHED = "e3576b30a5942c85e9d2f26b099b32b9e6c50f31b24c53b10f90bee1e9d40a0f"
LICENCE = "the weights of SO3LR: MIT License, Copyright (c) 2024 Thorben Frank"
UNKNOWN_LICENCE = "not stated in the file: ask the authors of these weights"
CITATIONS = (
    "A. Kabylda et al., J. Am. Chem. Soc. 2025, doi:10.1021/jacs.5c09558 (SO3LR)",
    "J. T. Frank et al., Nat. Commun. 15, 6539 (2024) (So3krates)",
)
MODELS = {f"so3krates_torch.modules.models.{name}" for name in ("So3krates", "SO3LR")}
# Constants and repeated tensors in a state dict of so3krates-torch.
DERIVED = (".degree_repeats", ".so3_conv_invariants.", "radial_embedding.radial_basis_fn.")
SECOND = ".euclidean_attention_block.filter_net_"
GAMMA = "radial_embedding.radial_basis_fn.gamma"
BERNSTEIN_GAMMA = 0.944863062918464
# Names of the weights of an energy that is switched off: both programs store them anyway.
OFF = {
    "zbl_repulsion_bool": ("zbl_repulsion.", "observables_0/zbl_repulsion/"),
    "electrostatic_energy_bool": ("partial_charges_output_block.", "observables_0/electrostatic_energy/"),
    "dispersion_energy_bool": ("hirshfeld_output_block.", "observables_2/"),
}
# Exceptions that Python raises if the parts of a damaged model do not fit each other.
UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Imported(NamedTuple):
    """A model of another program, converted."""

    config: dict[str, Any]  # keys of ModelConfig
    weights: dict[str, Tensor]  # parameters as precise as in the file, constants in float64
    elements: list[int]  # atomic numbers that it was trained on
    metadata: dict[str, Any]  # licence, citations, source, energy_shift_ev_per_atom


class Foreign(NamedTuple):
    """A model of another program with its own names and layouts."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    references: Tensor  # energies in addition to those of the weights, by atomic number, (119,), eV
    entry: Callable[
        [Entry], tuple[str, Callable[[Tensor], Tensor]]
    ]  # its name, and the conversion from its layout


def convert(source: str = "wheel", elements: Iterable[int] = ()) -> Imported:
    """Settings and weights of a model of the SO3LR family; no code of the other program is imported or run.

    Args:
        source: "wheel" for the installed package so3krates-torch, or a file: its wheel, a model that it
            saved, or params.pkl of mlff with hyperparameters.json in its folder.
        elements: atomic numbers that the model was trained on, if the file does not state them.

    Raises:
        So3kError: the file is missing, damaged, of another family, or of a model that so3k-md cannot express.
    """
    found = find(source)
    model = _read_jax(found) if found.hyperparameters else _read_torch(found)
    try:
        foreign.check(model.settings)
        tensors = _collect(model)
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            if name != "head.shift":  # the two programs keep it in different places
                digest.update(tensor.numpy().tobytes())
        weights, shift = _assemble(tensors, model.references)
        trained = _trained(weights["head.scale"], sorted(elements))
    except So3kError as error:
        raise So3kError(f"{found.name} {error}") from error
    except UNFIT as error:
        raise So3kError(
            f"{found.name} has weights of other shapes or kinds ({error!r:.80}): fetch it again"
        ) from error
    hidden = (len(weights[f"layers.0.feature_filter.{kind}.hidden.bias"]) for kind in ("radial", "spherical"))
    published = digest.hexdigest() == PUBLISHED
    metadata = {
        "imported": "SO3LR" if published else "model of the SO3LR family",
        "licence": LICENCE if published else UNKNOWN_LICENCE,
        "citations": list(CITATIONS),
        "energy_shift_ev_per_atom": shift,
        "source": found.name,
        "source_sha256": hashlib.sha256(found.data).hexdigest(),
        "weights_as_published": published,
    }
    return Imported(foreign.model_config(model.settings, *hidden), weights, trained, metadata)


def build(imported: Imported, dtype: torch.dtype | None = None) -> So3krates:
    """Build the model from its converted settings and weights.

    Args:
        imported: result of `convert`.
        dtype: precision of the parameters; None keeps that of the file.

    Raises:
        So3kError: the shapes of the weights do not follow from the settings.
    """
    config = from_mapping(ModelConfig, imported.config, "model")
    _check_widths(config, imported)
    model = So3krates(config, imported.elements)
    weights = imported.weights
    for name, expected in file_weights(model).items():
        if name in weights and weights[name].shape != expected.shape:
            shapes = f"{tuple(weights[name].shape)} instead of {tuple(expected.shape)}"
            raise So3kError(
                f"{imported.metadata['source']} has the shape {shapes} for {name}: fetch it again"
            )
    set_dtype(model, weights["embedding.weight"].dtype)  # before: weights are loaded in the model's precision
    load_weights(model, weights)
    with_needs(
        model,
        metadata=json.dumps(imported.metadata),
        energy_shift=float(imported.metadata["energy_shift_ev_per_atom"]),
        # its authors trained SO3LR on closed shells only; of other models nothing is known
        singlets_only=bool(imported.metadata["weights_as_published"]),
    )
    if dtype is not None:
        set_dtype(model, dtype)
    return model.requires_grad_(False).eval()


def _check_widths(config: ModelConfig, imported: Imported) -> None:
    """Refuse settings of a model of another size than the weights, before it is built."""
    n = config.features + len(config.degrees)
    numbers = {
        "embedding.weight": N_SPECIES * config.features,
        "layers.0.interaction.linear.weight": n * n,
        "layers.0.feature_filter.radial.hidden.weight": config.n_rbf * config.radial_hidden,
        "layers.0.feature_filter.spherical.hidden.weight": len(config.degrees) * config.chi_hidden,
    }
    for name, expected in numbers.items():
        if (found := imported.weights[name].numel()) != expected:
            source = imported.metadata["source"]
            raise So3kError(f"{source} has {found} numbers instead of {expected} for {name}: fetch it again")


def _read_torch(found: Source) -> Foreign:
    module = read_torch(found.data, found.name)
    if not isinstance(module, Record) or module.name not in MODELS:
        what = module.name if isinstance(module, Record) else type(module).__name__
        raise So3kError(
            f"{found.name} holds {what}: a whole model of so3krates-torch is needed, So3krates or SO3LR"
        )
    try:
        settings, weights = foreign.of_module(module.state), _state_dict(module)
    except So3kError as error:
        raise So3kError(f"{found.name} {error}: fetch it again") from error
    except UNFIT as error:
        raise So3kError(
            f"{found.name} holds a module without its parts ({error!r:.80}): fetch it again"
        ) from error
    references = torch.zeros(N_SPECIES, dtype=torch.float64)
    return Foreign(settings, weights, references, lambda e: (e.torch, e.layout.torch))


def _state_dict(module: Record) -> dict[str, Tensor]:
    """All parameters and buffers of a module, by torch's names."""
    tensors: dict[str, Tensor] = {}
    modules, count = [("", module)], 0
    while modules:
        prefix, module = modules.pop()
        count += 1
        if count > MAX_MODULES:
            raise So3kError(f"has more than {MAX_MODULES} modules")
        own = {**module.state["_parameters"], **module.state["_buffers"]}
        for name, tensor in own.items():
            if tensor is not None:
                tensors[check_name(f"{prefix}{name}")] = tensor
        children = module.state["_modules"].items()
        modules += [(check_name(f"{prefix}{name}."), child) for name, child in children if child is not None]
    return tensors


def _read_jax(found: Source) -> Foreign:
    try:
        document = json.loads(found.hyperparameters)
        settings = foreign.of_hyperparameters(document)
        shifts = document["data"].get("energy_shifts") or {}
        references = torch.zeros(N_SPECIES, dtype=torch.float64)
        for z, shift in shifts.items():
            if not 0 <= int(z) < N_SPECIES or not math.isfinite(shift):
                raise ValueError(f"energy_shifts of {z[:20]} is {shift}")
            references[int(z)] = shift
    except UNFIT as error:
        raise So3kError(
            f"the hyperparameters.json beside {found.name} is not one of mlff ({error!r:.80}): fetch it again"
        ) from error
    tree = read_pickle(found.data, found.name)
    try:
        weights = _flat(tree)
    except So3kError as error:
        raise So3kError(f"{found.name} {error}: fetch it again") from error
    return Foreign(settings, weights, references, lambda e: (f"params/{e.jax}", e.layout.jax))


def _flat(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """The leaves of nested dictionaries, by names joined with slashes."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    parts = (
        _flat(child, check_name(f"{prefix}/{name}" if prefix else str(name))) for name, child in tree.items()
    )
    return {name: leaf for part in parts for name, leaf in part.items()}


def _collect(model: Foreign) -> dict[str, Tensor]:
    """All tensors with names and layouts of this package; refuses missing and unknown tensors."""
    tensors: dict[str, Tensor] = {}
    known = set()
    for entry in entries(model.settings):
        name, layout = model.entry(entry)
        known.add(name)
        tensor = model.weights.get(name)
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise So3kError(f"has no tensor {name}: the file is not complete")
        try:
            tensors[entry.ours] = layout(tensor).contiguous()
        except (RuntimeError, IndexError) as error:
            raise So3kError(f"has the shape {tuple(tensor.shape)} for {name}: the file is damaged") from error
        if not torch.isfinite(tensor).all():
            raise So3kError(f"has numbers in {name} that are not finite: the file is damaged")
    _check_rest(model, known)
    return tensors


def _check_rest(model: Foreign, known: set[str]) -> None:
    """Refuse tensors that are not known, nor constants, repeated, or of an energy that is switched off."""
    off = [place for name, places in OFF.items() if not model.settings.get(name) for place in places]
    for name, tensor in model.weights.items():
        if name in known or any(part in name for part in DERIVED):
            continue
        first = model.weights.get(name.replace(SECOND, ".filter_net_")) if SECOND in name else None
        if first is not None and torch.equal(tensor, first):
            continue
        if not name.removeprefix("params/").startswith(tuple(off)):
            raise So3kError(f"has the tensor {name}, which so3k-md does not know")
    gamma = float(model.weights.get(GAMMA, torch.tensor(BERNSTEIN_GAMMA)))
    if abs(gamma / BERNSTEIN_GAMMA - 1) > 1e-6:
        raise So3kError(
            f"has a decay of the radial basis of {gamma}, but so3k-md supports only {BERNSTEIN_GAMMA}"
        )


def _assemble(tensors: dict[str, Tensor], references: Tensor) -> tuple[dict[str, Tensor], float]:
    """The weights of the model of so3k-md, and the energy that the other program adds to each atom, eV."""
    weights = dict(tensors)
    weights["head.scale"] = tensors["head.scale"].double()
    shifts = tensors["head.shift"].double() + references
    shift = float(shifts[1]) if bool((shifts[1:] == shifts[1]).all()) else 0.0
    # a shift common to all atoms would only reduce the precision of the energy
    weights["head.shift"] = torch.where(torch.arange(N_SPECIES) > 0, shifts - shift, 0.0)
    if "repulsion.p" in tensors:

        def positive(name: str) -> Tensor:
            return functional.softplus(weights.pop(f"repulsion.{name}").double())[0]

        a, c = (torch.stack([positive(f"{kind}{k}") for k in range(1, 5)]) for kind in "ac")
        weights |= {"repulsion.a": a, "repulsion.c": c / c.sum()}
        weights |= {f"repulsion.{name}": positive(name) for name in "pd"}
    return weights, shift


def _trained(scale: Tensor, given: list[int]) -> list[int]:
    """Atomic numbers whose scale training has changed; the given ones if it changed none."""
    changed = [z for z in range(1, N_SPECIES) if float(scale[z]) != 1.0]
    if not changed and not given:
        raise So3kError(
            "does not state the elements that it was trained on: name them, as in --elements H,C,O"
        )
    if changed and not set(given) <= set(changed):
        raise So3kError(f"was trained on the atomic numbers {changed} only, not on {given}")
    return given or changed
