"""The compiled parts of a model for each device, and the form of a model with these parts."""

import hashlib
import io
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.kernels.build import known_operators
from so3k_md.kernels.energies import KernelEnergies, cutoff_order
from so3k_md.kernels.gpu_layer import GpuEfaLayer, GpuLayer, GpuSphcLayer
from so3k_md.kernels.layer import KernelEfaLayer, KernelLayer, KernelSphcLayer
from so3k_md.kernels.long_range import KernelLatticeSum, KernelLongPairs, KernelLongRangePhysics
from so3k_md.model import So3krates, weights_hash
from so3k_md.model.energies import Energies
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.model.parts import Parts
from so3k_md.model_config import ModelConfig
from so3k_md.needs import needs_of
from so3k_md.nn.geometry import Geometry
from so3k_md.physics.kspace import LatticeSum


class KernelGeometry(Geometry):
    """`Geometry` that lists each pair between two centres once, in one direction.

    A source is a centre if it has pairs of its own. Pairs with other sources run from the centre.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.cutoff_p = cutoff_order(self)
        self.degrees = list(config.degrees)
        self.odd = [degree % 2 == 1 for degree in config.degrees for _ in range(2 * degree + 1)]

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, like: Tensor) -> Edges:
        """Everything that layers read about local pairs; arguments as in `Geometry`."""
        r, ylm, idx_i, idx_j, back = torch.ops.so3k.geometry(
            vectors, idx_i, idx_j, self.steps(like), self.degrees, self.direction
        )
        return Edges(
            idx_i, idx_j, r[:, None], ylm, torch.ops.so3k.cutoff(r, self.cutoff, self.cutoff_p), r, back
        )

    def steps(self, like: Tensor) -> list[Tensor]:
        """Matrices from Y_l to Y_(l+1), (2l + 3, 3 (2l + 1)) for each degree l; see `NextDegree`."""
        found: list[Tensor] = []
        for step in self.harmonics.steps:
            found.append(step.weight.t().to(like.dtype).clone())
        # at least one tensor, because the kernel takes the precision from it
        return found if len(found) > 0 else [torch.zeros([3, 3], dtype=like.dtype, device=like.device)]

    def directed(self, edges: Edges) -> Edges:
        """The same pairs in both directions, without the fields that only layers read."""
        reverse = torch.nonzero(edges.back)[:, 0]
        ylm = edges.ylm.index_select(0, reverse)
        ylm = torch.where(torch.tensor(self.odd, device=ylm.device), -ylm, ylm)
        return Edges(
            torch.cat([edges.idx_i, edges.idx_j.index_select(0, reverse)]),
            edges.idx_j,
            edges.rbf,
            torch.cat([edges.ylm, ylm]),
            torch.cat([edges.cut, edges.cut.index_select(0, reverse)]),
            edges.r,
            edges.back,
        )


class GpuGeometry(KernelGeometry):
    """`Geometry` whose distances and harmonics the kernels compute.

    Pairs have to be listed in the order of their centres, as in every list of `structure` and of LAMMPS. With
    other lists all distances are NaN: a check that raised an error would wait for the GPU.
    """

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, like: Tensor) -> Edges:
        """Everything that layers read of local pairs; arguments as in `Geometry`."""
        found = torch.ops.so3k.geometry(vectors, idx_i, idx_j, self.steps(like), self.degrees, self.direction)
        in_order = (idx_i[1:] >= idx_i[:-1]).all()
        r = torch.where(in_order, found[0], torch.full_like(found[0], float("nan")))
        return Edges(idx_i, idx_j, r[:, None], found[1], self.cutoff_function(r), r, found[4])

    def directed(self, edges: Edges) -> Edges:
        """The pairs in both directions; `forward` already gives both."""
        return edges


# Device -> its compiled parts.
COMPILED = {
    "cpu": Parts(
        "kernels-cpu",
        KernelGeometry,
        {"none": KernelLayer, "sphc": KernelSphcLayer, "efa": KernelEfaLayer},
        KernelEnergies,
        KernelLongRangePhysics,
        KernelLongPairs,
        KernelLatticeSum,
    ),
    "cuda": Parts(
        "kernels-cuda",
        GpuGeometry,
        {"none": GpuLayer, "sphc": GpuSphcLayer, "efa": GpuEfaLayer},
        Energies,
        LongRangePhysics,
        KernelLongPairs,
        LatticeSum,
    ),
}


@lru_cache(maxsize=16)
def kernel_code(config: ModelConfig, elements: tuple[int, ...], device: str = "cpu") -> bytes:
    """The compiled form of all models of one shape as a TorchScript file without weights.

    Args:
        config: shape of these models.
        elements: atomic numbers that they know.
        device: a key of COMPILED.
    """
    form = So3krates(config, list(elements), parts=COMPILED[device]).eval().requires_grad_(False)
    for layer in form.representation.layers:
        layer.key = ""
    with known_operators():
        return bytes(torch.jit.script(emptied(form)).save_to_buffer())


def emptied(form: nn.Module) -> nn.Module:
    """A module without its weights and constants, in place."""
    for tensor in [*form.parameters(), *form.buffers()]:
        tensor.data = torch.empty([0], dtype=tensor.dtype)
    return form


def with_weights(code: bytes, model: Any) -> Any:
    """The compiled form of a model. It shares weights and constants with the model.

    It is loaded instead of scripted, because torch frees the code of a loaded file with its last user, but
    never frees scripted code or its copies.

    Args:
        code: result of `kernel_code`.
        model: eager or exported.
    """
    form = torch.jit.load(io.BytesIO(code), map_location=next(model.parameters()).device)
    given = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in [*form.named_parameters(), *form.named_buffers()]:
        tensor.data = given[name].data
    form.needs = needs_of(model)
    digest = hashlib.sha256(code + weights_hash(model).encode()).hexdigest()
    for k, layer in enumerate(form.representation.layers.children()):
        layer.key = f"{digest} {k}"
    return form.eval()
