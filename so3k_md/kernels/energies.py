"""What stands after the layers, computed by the compiled kernels: heads, and the repulsion of nuclei."""

import torch
from torch import Tensor

from so3k_md.model.energies import Energies
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.readout import EnergyHead
from so3k_md.physics.zbl import ZBL


class KernelEnergies(Energies):
    """`Energies` whose heads are one operator, and whose repulsion is another."""

    def __init__(
        self, head: EnergyHead, repulsion: ZBL | None, physics: LongRangePhysics | None, geometry: Geometry
    ):
        super().__init__(head, repulsion, physics, geometry)
        self.cutoff, self.cutoff_p = geometry.cutoff, cutoff_order(geometry)

    @torch.jit.export
    def heads(self, x: Tensor, species: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in `Energies`."""
        none, energy = x[:0, 0], self.head.mlp
        if self.physics is not None:
            charge, ratio = self.physics.charge_head, self.physics.ratio_head
            return torch.ops.so3k.heads(
                x,
                species,
                energy_hidden=energy.hidden.weight,
                energy_hidden_bias=energy.hidden.bias,
                energy_out=energy.out.weight,
                energy_out_bias=energy.out.bias,
                energy_scale=self.head.scale,
                energy_shift=self.head.shift,
                charge_hidden=charge.mlp.hidden.weight,
                charge_hidden_bias=charge.mlp.hidden.bias,
                charge_out=charge.mlp.out.weight,
                charge_out_bias=charge.mlp.out.bias,
                charge_table=charge.table,
                ratio_hidden=ratio.mlp.hidden.weight,
                ratio_hidden_bias=ratio.mlp.hidden.bias,
                ratio_out=ratio.mlp.out.weight,
                ratio_out_bias=ratio.mlp.out.bias,
                ratio_query=ratio.query,
                ratio_shift=ratio.shift,
                ratio_scale=ratio.scale,
            )
        return torch.ops.so3k.heads(
            x,
            species,
            energy_hidden=energy.hidden.weight,
            energy_hidden_bias=energy.hidden.bias,
            energy_out=energy.out.weight,
            energy_out_bias=energy.out.bias,
            energy_scale=self.head.scale,
            energy_shift=self.head.shift,
            charge_hidden=none,
            charge_hidden_bias=none,
            charge_out=none,
            charge_out_bias=none,
            charge_table=none,
            ratio_hidden=none,
            ratio_hidden_bias=none,
            ratio_out=none,
            ratio_out_bias=none,
            ratio_query=none,
            ratio_shift=none,
            ratio_scale=1.0,
        )

    @torch.jit.export
    def close_repulsion(
        self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, species: Tensor, like: Tensor, n_centres: int
    ) -> Tensor:
        """As in `Energies`, in float64 throughout."""
        if self.repulsion is not None:
            return torch.ops.so3k.repulsion(
                vectors,
                idx_i,
                idx_j,
                species,
                decays=self.repulsion.a,
                shares=self.repulsion.c,
                power=self.repulsion.p,
                per_length=self.repulsion.d,
                reach=self.repulsion.reach,
                ke=self.repulsion.ke,
                cutoff=self.cutoff,
                p=self.cutoff_p,
                n_centres=n_centres,
            )
        return torch.zeros([n_centres], dtype=torch.float64, device=vectors.device)


def cutoff_order(geometry: Geometry) -> int:
    """p of the polynomial cutoff function of pairs; 0 for the cosine."""
    return int(getattr(geometry.cutoff_function, "p", 0))
