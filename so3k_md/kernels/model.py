"""So3krates with the messages of its layers computed by the compiled kernel."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.config import from_mapping
from so3k_md.errors import So3kError
from so3k_md.facts import facts_of, set_facts
from so3k_md.graph import Edges
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.far import FarKernel, steps_of
from so3k_md.kernels.long_range import KernelLongPairs
from so3k_md.kernels.table import double, quintic_table
from so3k_md.model import So3krates, set_dtype
from so3k_md.model_config import ModelConfig
from so3k_md.nn.nonlocal_sphc import Groups


class LayerKernel(nn.Module):
    """What the kernel needs of one layer: `Layer.attend` for pairs that are given once.

    The filter of a pair is the same in both directions, as it depends on r and ‖χ_i − χ_j‖ only. Its radial
    part is a table, its spherical part and all products of features are made in the kernel, some pairs at a
    time, so that no array of (pairs, F) exists.
    """

    def __init__(self, model: So3krates, k: int):
        super().__init__()
        layer = model.layers[k]
        nets = [layer.feature_filter, layer.geometric_filter]
        dtype = model.embedding.weight.dtype
        zero = torch.zeros([1, len(model.config.degrees)], dtype=torch.float64)
        is_first = k == 0 and not model.chi_from_neighbours

        def filters(r: Tensor) -> Tensor:
            rbf = model.radial_basis(r)
            rbf = rbf * model.cutoff_function(r)[:, None] if model.damp_rbf else rbf
            # where all χ are zero the spherical part is a constant, which the table takes along
            parts = [
                double(net.radial, rbf)
                + (double(net.spherical, zero) if is_first else net.spherical.out.bias)
                for net in nets
            ]
            return torch.cat(parts, dim=1)

        table, width = quintic_table(filters, model.cutoff, dtype)
        of_x, of_chi = layer.feature_attention.attention, layer.geometric_attention.attention
        parts = [of_x.query, of_chi.query, of_x.key, of_chi.key, layer.feature_attention.value]
        scales = [of_x.scale, of_chi.scale, 1.0, 1.0, 1.0]
        none = torch.zeros([model.features], dtype=dtype)
        maps = [part.weight * scale for part, scale in zip(parts, scales, strict=True)]
        biases = [
            none if part.bias is None else part.bias * scale
            for part, scale in zip(parts, scales, strict=True)
        ]
        out = torch.stack([net.spherical.out.weight for net in nets])
        out = out[:, :0] if is_first else out
        # in the order of `constants_of` in attend.cpp
        tensors = [
            *maps,
            *(weight.transpose(1, 2) for weight in maps),
            torch.cat(biases[:2]),
            torch.cat(biases[2:4]),
            biases[4],
            torch.cat([net.spherical.hidden.weight for net in nets], dim=1),
            torch.cat([net.spherical.hidden.bias for net in nets]),
            out,
            out.transpose(1, 2),
            table,
        ]
        # copies: a frozen module must not hold a tensor in two places
        self.tensors = [tensor.detach().clone().contiguous() for tensor in tensors]
        self.numbers = [width, float(model.norm_eps)]
        self.degrees = list(model.config.degrees)
        self.squared = model.config.chi_invariant == "squared"

    def forward(
        self, x: Tensor, chi: Tensor, x_src: Tensor, chi_src: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the centres."""
        tensors = [edges.idx_i, edges.idx_j, edges.back] + self.tensors
        return torch.ops.so3k.attend(
            x,
            chi,
            x_src,
            chi_src,
            edges.r,
            edges.cut,
            edges.ylm,
            tensors,
            self.numbers,
            self.degrees,
            self.squared,
        )


class KernelSo3krates(So3krates):
    """The same energies as So3krates from every pair given once, by the compiled kernel.

    Args:
        model: an eager model on the CPU.
    """

    def __init__(self, model: So3krates):
        super().__init__(model.config, model.elements)
        if self.has_long_range:
            self.long_pairs = KernelLongPairs(model.config.rounding)
        take_over(self, model)
        self.kernels = nn.ModuleList([LayerKernel(self, k) for k in range(self.n_layers)])
        self.degrees = list(model.config.degrees)
        self.steps = steps_of(model)
        n_far = self.n_layers if self.has_sphc else 0
        self.far_kernels = nn.ModuleList([FarKernel(self, k) for k in range(n_far)])
        self.tiled = False  # the kernel makes far pairs again in the reverse pass by itself
        self.odd = [degree % 2 == 1 for degree in model.config.degrees for _ in range(2 * degree + 1)]

    @torch.jit.export
    def geometry(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor) -> Edges:
        """As in So3krates, of every pair once: from one of two centres, or from a centre to its source.

        A source is a centre if it has pairs of its own.
        """
        r, ylm, idx_i, idx_j, back = torch.ops.so3k.geometry(
            vectors, idx_i, idx_j, self.steps, self.degrees, self.direction
        )
        return Edges(idx_i, idx_j, r[:, None], ylm, self.cutoff_function(r), r, back)

    def tally(
        self, vectors: Tensor, slopes: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """As in So3krates."""
        return torch.ops.so3k.tally(vectors, slopes, idx_i, idx_j, frame, n_frames)

    def directed(self, edges: Edges) -> Edges:
        """The same pairs in both directions, without what only layers read."""
        turned = torch.nonzero(edges.back)[:, 0]
        ylm = edges.ylm.index_select(0, turned)
        ylm = torch.where(torch.tensor(self.odd, device=ylm.device), -ylm, ylm)
        return Edges(
            torch.cat([edges.idx_i, edges.idx_j.index_select(0, turned)]),
            edges.idx_j,
            edges.rbf,
            torch.cat([edges.ylm, ylm]),
            torch.cat([edges.cut, edges.cut.index_select(0, turned)]),
            edges.r,
            edges.back,
        )

    @torch.jit.export
    def attend(
        self, k: int, x: Tensor, chi: Tensor, x_src: Tensor, chi_src: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) of layer k to the centres (x, χ) from the sources (x_src, χ_src)."""
        dx, dchi = x, chi
        for i, kernel in enumerate(self.kernels):
            if i == k:
                dx, dchi = kernel(x, chi, x_src, chi_src, edges)
        return dx, dchi

    @torch.jit.export
    def tiles(self, groups: Groups) -> list[int]:
        """sphc: all centres at once, as the kernel has tiles of its own."""
        return [0, groups.size.size(0)] if groups.size.size(0) > 0 else [0]

    @torch.jit.export
    def far_attend(
        self,
        k: int,
        x: Tensor,
        chi: Tensor,
        r: Tensor,
        x_src: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        first: int,
        last: int,
    ) -> Tensor:
        """sphc: Δχ of layer k to some centres; see `far_pairs` and `far_message`."""
        dchi = chi
        query, key = self.far_rows(k, x[first:last], x_src)
        mine = Groups(
            groups.members, groups.first[first:last], groups.size[first:last], groups.own[first:last]
        )
        for i, kernel in enumerate(self.far_kernels):
            if i == k:
                dchi = kernel(query, key, chi[first:last], r[first:last], chi_src, r_src, mine)
        return dchi

    def far_messages(self, k: int, x: Tensor, chi: Tensor, r: Tensor, groups: Groups) -> Tensor:
        """sphc: Δχ of layer k to all atoms."""
        return self.far_attend(k, x, chi, r, x, chi, r, groups, 0, x.size(0))


def eager(model: Any) -> So3krates:
    """The model of an exported file as an object of this package, from what the file says of itself."""
    if isinstance(model, So3krates):
        return model
    said = json.loads(model.metadata)
    copy = So3krates(from_mapping(ModelConfig, said["config"], "model"), model.elements)
    return take_over(copy, model).eval()


def take_over(model: So3krates, source: Any) -> So3krates:
    """Weights, their precision and all facts, from a model of the same shape, in place."""
    set_dtype(model, next(source.parameters()).dtype)  # first: weights take the precision of where they go
    model.load_state_dict(source.state_dict())
    set_facts(model, facts_of(source))
    return model.requires_grad_(False)


def accelerated(model: Any, kernels: str = "auto") -> Any:
    """The model with compiled kernels where these serve it, else the model itself.

    Args:
        model: eager or exported, ready for evaluation.
        kernels: auto, for models in float32 on a CPU if the kernels are built; on, for any model on a CPU,
            or else an error; off.

    Raises:
        So3kError: another word, or `on` where it cannot be.
    """
    if kernels not in ("auto", "on", "off"):
        raise So3kError(f"kernels = {kernels!r} is not known: choose auto, on or off")
    weight = next(model.parameters())
    made = hasattr(model, "kernels")
    if made or kernels == "off" or (kernels == "auto" and weight.dtype != torch.float32):
        return model
    obstacle = None
    if weight.device.type != "cpu":
        obstacle = "the kernels are for CPUs"
    elif not isinstance(model, So3krates) and "config" not in json.loads(model.metadata):
        obstacle = "the model does not say how it is built: export it with so3k-md export"
    elif not load_kernels():
        obstacle = "the kernels are not built: so3k-md kernels build"
    if obstacle and kernels == "on":
        raise So3kError(f"kernels = on is impossible: {obstacle}")
    return model if obstacle else torch.jit.script(KernelSo3krates(eager(model)).eval())
