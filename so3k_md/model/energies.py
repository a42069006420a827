"""Computes the outputs of each atom from the last features: learned energies and physics in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.adjoint import ClosedForm, derivative_only
from so3k_md.graph import Graph, Outputs
from so3k_md.model.long_range import Charged, LongRangePhysics
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.readout import EnergyHead
from so3k_md.physics.zbl import ZBL
from so3k_md.reads import rows_worth


class Assessment(NamedTuple):
    """The outputs, and the derivatives of the long-range energies, which autograd does not compute."""

    outputs: Outputs
    positions: Tensor  # (atoms, 3), ∂E/∂r_i, eV/Å
    virial: Tensor  # (frames, 3, 3), part of the virial that does not follow from these, eV


class Energies(nn.Module):
    """e_i = head(x_i) + repulsion of nuclei + electrostatics + dispersion, without the terms a model lacks.

    Args:
        head: learned energies.
        repulsion: of nuclei, or None.
        physics: electrostatics and dispersion, or None.
        geometry: of pairs, for the cutoff function of the repulsion.
    """

    def __init__(
        self, head: EnergyHead, repulsion: ZBL | None, physics: LongRangePhysics | None, geometry: Geometry
    ):
        super().__init__()
        self.head = head
        self.repulsion = repulsion
        self.physics = physics
        self.cutoff_function = geometry.cutoff_function

    def forward(self, x: Tensor, graph: Graph) -> Assessment:
        """The outputs of all atoms from their last features x (atoms, F)."""
        found = self.learned(x, graph)
        if self.physics is not None:
            with torch.no_grad():
                physical = self.physics.assess(found.charges, found.ratios, graph)
            tape = derivative_only(found.charges, physical.by_raw) + derivative_only(
                found.ratios, physical.found.ratios
            )
            return joined(found, physical, tape)
        with torch.no_grad():
            virial = torch.zeros([graph.cell.size(0), 3, 3], dtype=torch.float64, device=x.device)
            return Assessment(found, torch.zeros_like(graph.positions), virial)

    def differentiable(self, x: Tensor, graph: Graph) -> Assessment:
        """As `forward`; charges and derivatives in closed form keep their history, for second derivatives.

        Only the derivatives by charges and ratios belong to the history of the energies. Those by positions
        are in `Assessment.positions`, with the history of the positions and long-range vectors of the graph.
        """
        if self.physics is None:
            return self(x, graph)
        found = self.learned(x, graph)
        physical = self.physics.assess(found.charges, found.ratios, graph)
        tape = ClosedForm.apply(found.charges, physical.by_raw) + ClosedForm.apply(
            found.ratios, physical.found.ratios
        )
        return joined(found, physical, tape)

    def learned(self, x: Tensor, graph: Graph) -> Outputs:
        """The outputs without electrostatics and dispersion; charges are those of `raw_charges`."""
        species, n_atoms = graph.species, graph.species.size(0)
        short, raw, ratios = self.heads(x, species)
        close = self.close_repulsion(graph.vectors, graph.idx_i, graph.idx_j, species, x, n_atoms)
        with torch.no_grad():
            zeros = torch.zeros_like(short)
            parts = torch.stack([short, close, zeros, zeros], dim=1)
        return Outputs(short + close, parts, raw, ratios)

    @torch.jit.export
    def heads(self, x: Tensor, species: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Learned energies, raw charges and ratios of rows; the last two are empty without physics."""
        short, none = self.readout(x, species), x[:0, 0]
        if self.physics is not None:
            return short, self.physics.raw_charges(x, species), self.physics.ratios(x, species)
        return short, none, none

    @torch.jit.export
    def readout(self, x: Tensor, species: Tensor) -> Tensor:
        """Learned energies (atoms,) in eV, float64."""
        return self.head(x, species)

    @torch.jit.export
    def close_repulsion(
        self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, species: Tensor, like: Tensor, n_centres: int
    ) -> Tensor:
        """Repulsion of nuclei, (n_centres,), eV, float64; zeros for models without it.

        Args:
            vectors: r_j − r_i of the pairs within the cutoff, (pairs, 3), Å.
            idx_i: centre rows, (pairs,).
            idx_j: source rows, (pairs,).
            species: of all rows.
            like: any tensor of the precision in which layers work.
            n_centres: number of centre rows.
        """
        energies = torch.zeros([n_centres], dtype=torch.float64, device=vectors.device)
        if self.repulsion is not None:
            with torch.no_grad():
                square = (vectors * vectors).sum(1)
                near = rows_worth(square < self.repulsion.reach * self.repulsion.reach)
            v = vectors.index_select(0, near).to(like.dtype)
            # a smallest distance keeps energy and derivative finite for atoms at the same position
            r = torch.sqrt((v * v).sum(1).clamp(min=1e-12))
            i, z = idx_i.index_select(0, near), species.to(torch.float64)
            z_i, z_j = z.index_select(0, i), z.index_select(0, idx_j.index_select(0, near))
            pairs = self.repulsion(r, z_i, z_j, self.cutoff_function(r))
            energies = energies.index_add(0, i, pairs.to(torch.float64))
        return energies


def joined(learned: Outputs, charged: Charged, tape: Tensor) -> Assessment:
    """The outputs with electrostatics and dispersion.

    Args:
        learned: of `Energies.learned`.
        charged: charges, and the energies that follow from them.
        tape: zeros (atoms,) with which autograd continues from the derivatives by charges and ratios.
    """
    found = charged.found
    with torch.no_grad():
        parts = torch.cat([learned.parts[:, :2], found.energies], dim=1)
        physical = found.energies.sum(1)
    outputs = Outputs(learned.energies + physical + tape, parts, charged.charges, learned.ratios)
    return Assessment(outputs, found.positions, found.virial)
