"""The weights of a model: their names, their precision, their hash, and copies for evaluation."""

import copy
import hashlib
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

AnyModel = TypeVar("AnyModel", bound=nn.Module)

# Parts that group other parts. Names of weights in files leave them out.
GROUPING = {"representation", "energies", "reach", "charge_and_spin", "physics"}
UNUSED = ("charge_embedding.", "spin_embedding.")  # in files of models without total charge and spin


def file_name(name: str) -> str:
    """The name of a weight in files, which does not depend on how the parts of a model are grouped."""
    shared = name.rpartition("geometry.")[2]  # several parts refer to the one geometry
    return ".".join(part for part in shared.split(".") if part not in GROUPING)


def file_weights(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model by their names in files, the same tensors."""
    return {file_name(name): tensor for name, tensor in model.state_dict().items()}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set the weights of a model by their names in files, in place; constants may be missing.

    Args:
        model: eager.
        weights: parameters and buffers.

    Raises:
        RuntimeError: names or shapes that do not fit.
    """
    constants = {file_name(name): tensor for name, tensor in model.named_buffers()}
    known = constants | dict(weights)
    own = {name: file_name(name) for name in model.state_dict()}
    if unknown := [n for n in weights if n not in own.values() and not n.startswith(UNUSED)]:
        raise RuntimeError(f"unknown weights {', '.join(unknown[:3])}")
    model.load_state_dict(
        {name: known[known_name] for name, known_name in own.items() if known_name in known}
    )


def set_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change the precision of the parameters in place; constants stay float64 and are cast at use."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def still_copy(model: AnyModel) -> AnyModel:
    """A copy for evaluation that can be set, cast and moved without any change to the model."""
    with torch.no_grad():  # else the copies of scripted parameters are not leaves
        still = copy.deepcopy(model).eval()
    for parameter in still.parameters():  # of scripted models as well, which have no `requires_grad_`
        parameter.requires_grad_(False)
    return still


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in the order of their names in files."""
    digest = hashlib.sha256()
    for name, tensor in sorted(file_weights(model).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
