"""What the compiled kernel needs of the attention of one layer between atoms that are near in SPHC space."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from so3k_md.kernels.table import double, quintic_table
from so3k_md.nn.nonlocal_sphc import Groups
from so3k_md.nn.spherical import NextDegree

if TYPE_CHECKING:
    from so3k_md.model import So3krates

LANES = 16  # numbers of the widest register


def steps_of(model: "So3krates") -> list[Tensor]:
    """(2l + 3, 3 (2l + 1)) of each degree l but the last: of what the harmonics of the next one are made."""
    dtype = model.embedding.weight.dtype
    # at least one, which carries the precision
    steps = list(model.harmonics.steps) or [NextDegree(0)]
    return [step.weight.t().to(dtype).contiguous() for step in steps]


class FarKernel(nn.Module):
    """`FarStages.far_attend` of one layer with every pair made once, tile by tile in the cache.

    The filter of a pair is the same in both directions. Beyond the cutoff its radial part is a constant;
    what is added to that within the cutoff is a table.
    """

    table: Tensor
    shift: Tensor
    out: Tensor
    turned: Tensor

    def __init__(self, model: "So3krates", k: int):
        super().__init__()
        layer = model.layers[k]
        net = layer.geometric_filter
        dtype = model.embedding.weight.dtype
        # as in `Layer.radial_filters`: the basis is damped also where the local attention does without
        beyond = double(net.radial, torch.zeros([1, model.config.n_rbf], dtype=torch.float64))

        def near(r: Tensor) -> Tensor:
            rbf = model.radial_basis(r) * model.cutoff_function(r)[:, None]
            return double(net.radial, rbf) - beyond

        self.heads = len(model.config.degrees)
        self.extra = -(model.config.features // self.heads) % LANES
        table, width = quintic_table(near, model.cutoff, dtype)
        shift = (beyond + net.spherical.out.bias.double()).to(dtype)
        self.register_buffer("table", self.widened(table.flatten(0, 1)).unflatten(0, table.shape[:2]))
        self.register_buffer("shift", self.widened(shift)[0])
        self.register_buffer("out", self.widened(net.spherical.out.weight))
        self.register_buffer("turned", self.out.t().contiguous())
        self.hidden = net.spherical.hidden
        self.steps = steps_of(model)
        self.numbers = [
            width,
            model.cutoff,
            layer.norm_eps,
            layer.temperature,
            layer.kappa,
            model.direction,
        ]
        self.degrees = list(model.config.degrees)
        self.p = int(layer.nonlocal_p)
        self.squared = model.config.chi_invariant == "squared"

    def widened(self, rows: Tensor) -> Tensor:
        """Rows in which the features of each head are followed by zeros that make up whole registers."""
        by_head = rows.view(rows.size(0), self.heads, rows.size(1) // self.heads)
        return nn.functional.pad(by_head, [0, self.extra]).flatten(1)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        chi: Tensor,
        r: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
    ) -> Tensor:
        """Δχ to the centres, whose groups these are; see `FarStages.far_pairs`."""
        tensors = [
            groups.members,
            groups.first,
            groups.size,
            groups.own,
            self.hidden.weight,
            self.hidden.bias,
            self.out,
            self.turned,
            self.shift,
            self.table,
        ]
        return torch.ops.so3k.far_attend(
            self.widened(query),
            self.widened(key),
            chi,
            chi_src,
            r,
            r_src,
            tensors + self.steps,
            self.numbers,
            self.degrees,
            self.p,
            self.squared,
        )
