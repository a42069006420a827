"""Computes the outputs of each atom from the last features: learned energies and physics in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.adjoint import derivative_only
from so3k_md.graph import Graph, Outputs
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.readout import EnergyHead
from so3k_md.physics.zbl import ZBL
from so3k_md.reads import rows_worth


class Assessment(NamedTuple):
    """The outputs, and the derivatives of the long-range energies, which have no autograd history."""

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
        species, n_atoms = graph.species, graph.species.size(0)
        short, raw, ratios = self.heads(x, species)
        close = self.close_repulsion(graph.vectors, graph.idx_i, graph.idx_j, species, x, n_atoms)
        learned = short + close
        if self.physics is not None:
            with torch.no_grad():
                q = self.physics.charges(raw, graph)
                found = self.physics(q, ratios, graph)
                by_raw = self.physics.charges_adjoint(found.charges, graph)
                parts = torch.cat([torch.stack([short, close], dim=1), found.energies], dim=1)
                physical = found.energies.sum(1)
            # autograd continues with the derivatives by charges and ratios, through the layers
            tape = derivative_only(raw, by_raw) + derivative_only(ratios, found.ratios)
            outputs = Outputs(learned + physical + tape, parts, q, ratios)
            return Assessment(outputs, found.positions, found.virial)
        with torch.no_grad():
            virial = torch.zeros([graph.cell.size(0), 3, 3], dtype=torch.float64, device=x.device)
            zeros = torch.zeros_like(short)
            parts = torch.stack([short, close, zeros, zeros], dim=1)
            outputs = Outputs(learned, parts, raw, ratios)
            return Assessment(outputs, torch.zeros_like(graph.positions), virial)

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
