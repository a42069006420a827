"""Computes charges and volumes of atoms, and the electrostatics and dispersion that follow from them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.graph import Graph
from so3k_md.nn.readout import ChargeHead, RatioHead
from so3k_md.nn.segment import outer_sum, segment_sum
from so3k_md.physics.coulomb import open_sum, self_terms
from so3k_md.physics.kspace import LatticeDerivatives, LatticeSum
from so3k_md.physics.long_range import LongPairs


class LongRangeEnergies(NamedTuple):
    """Energies of atoms and all derivatives, in closed form."""

    energies: Tensor  # (atoms, 2), electrostatics and dispersion, eV, float64
    charges: Tensor  # (atoms,), ∂E/∂q, eV/e
    ratios: Tensor  # (atoms,), ∂E/∂h, eV
    positions: Tensor  # (atoms, 3), ∂E/∂r, eV/Å
    virial: Tensor  # (frames, 3, 3), part of the virial that does not follow from these, eV


class Charged(NamedTuple):
    """The charges of atoms, and the energies that follow from them."""

    charges: Tensor  # (atoms,), e, which add up to those of the fragments
    by_raw: Tensor  # (atoms,), derivative of the energy by the charges before this condition, eV/e
    found: LongRangeEnergies


class LongRangePhysics(nn.Module):
    """Electrostatics and dispersion in the form of SO3LR.

    Charges and volumes follow from the last features, and the energies of pairs follow from charges and
    volumes. Derivatives of these energies are in closed form. Callers that only evaluate disable autograd, so
    that no long-range pair has a history; training needs the history of these derivatives.

    Args:
        charge_head: charges that do not yet add up to the charges of the fragments.
        ratio_head: Hirshfeld volumes over those of free atoms.
        long_pairs: energies of pairs.
        lattice_sum: energies of a periodic cell.
    """

    def __init__(
        self, charge_head: ChargeHead, ratio_head: RatioHead, long_pairs: LongPairs, lattice_sum: LatticeSum
    ):
        super().__init__()
        self.charge_head = charge_head
        self.ratio_head = ratio_head
        self.long_pairs = long_pairs
        self.lattice_sum = lattice_sum
        self.boundary = ""  # of all graphs, if known before they are: see `boundary_of`

    def assess(self, raw: Tensor, ratios: Tensor, graph: Graph) -> Charged:
        """Charges and energies from `raw_charges` (atoms,) and `ratios` (atoms,)."""
        q = self.charges(raw, graph)
        found = self(q, ratios, graph)
        return Charged(q, self.charges_adjoint(found.charges, graph), found)

    def forward(self, q: Tensor, h: Tensor, graph: Graph) -> LongRangeEnergies:
        """Energies of the atoms of a graph.

        Args:
            q: charges, (atoms,), e.
            h: Hirshfeld volumes over those of free atoms, (atoms,).
            graph: one structure or a batch.
        """
        long = graph.long
        n_atoms, n_frames = q.size(0), graph.cell.size(0)
        pairs = self.long_pairs(
            long.vectors, long.idx_i, long.idx_j, graph.species, q, h, long.coulomb, long.cutoff
        )
        by_r, outer = self.long_pairs.tally(
            long.vectors, pairs.vectors, long.idx_i, long.idx_j, graph.frame, n_frames
        )
        atoms = torch.arange(n_atoms, device=q.device)
        virial = outer_sum(graph.positions, by_r, graph.frame, atoms, n_frames) - outer
        energies, by_q = pairs.energies, pairs.charges
        if long.coulomb == "shifted+self":
            own, derivatives = self.self_derivatives(q, long.cutoff)
            energies[:, 0] += own
            by_q = by_q + derivatives
        elif long.coulomb == "kspace":
            whole = self.coulomb_of_frames(q, graph)
            energies[:, 0] += whole.energies
            by_q = by_q + whole.charges
            by_r = by_r + whole.positions.to(by_r.dtype)
            virial = virial + whole.virial
        return LongRangeEnergies(energies, by_q, pairs.ratios, by_r, virial)

    def coulomb_of_frames(self, q: Tensor, graph: Graph) -> LatticeDerivatives:
        """`whole_coulomb` of each frame; `virial` is (frames, 3, 3)."""
        if graph.cell.size(0) == 1:
            found = self.whole_coulomb(q, graph.positions, graph.cell[0])
            return LatticeDerivatives(found.energies, found.charges, found.positions, found.virial[None])
        energies, by_q = torch.zeros_like(graph.positions[:, 0]), torch.zeros_like(q)
        by_r, virial = torch.zeros_like(graph.positions), torch.zeros_like(graph.cell)
        for frame in range(graph.cell.size(0)):
            mine = torch.nonzero(graph.frame == frame)[:, 0]
            found = self.whole_coulomb(
                q.index_select(0, mine), graph.positions.index_select(0, mine), graph.cell[frame]
            )
            energies.index_copy_(0, mine, found.energies)
            by_q.index_copy_(0, mine, found.charges)
            by_r.index_copy_(0, mine, found.positions.to(by_r.dtype))
            virial[frame] = found.virial
        return LatticeDerivatives(energies, by_q, by_r, virial)

    def charges(self, raw: Tensor, graph: Graph) -> Tensor:
        """Charges (atoms,), e, that add up to those of the fragments, from `raw_charges`."""
        return self.shifted(raw, graph.long.fragment_charge, graph.long.fragment)

    def charges_adjoint(self, by_q: Tensor, graph: Graph) -> Tensor:
        """∂E/∂q̃ = ∂E/∂q − its mean over the fragment, from ∂E/∂q, (atoms,), eV/e."""
        return self.shifted(by_q, torch.zeros_like(graph.long.fragment_charge), graph.long.fragment)

    def shifted(self, values: Tensor, total: Tensor, fragment: Tensor) -> Tensor:
        """The values of atoms, shifted so that those of each fragment add up to `total` (fragments,)."""
        sums = segment_sum(values, fragment, total.size(0))
        count = segment_sum(torch.ones_like(values), fragment, total.size(0))
        return self.conserved(values, sums, count, total, fragment)

    @torch.jit.export
    def raw_charges(self, x: Tensor, species: Tensor) -> Tensor:
        """Charges (rows,), e, that do not yet add up to those of the fragments."""
        return self.charge_head(x, species)

    @torch.jit.export
    def conserved(self, raw: Tensor, sums: Tensor, count: Tensor, charge: Tensor, fragment: Tensor) -> Tensor:
        """q_i = q̃_i + (Q − Σ q̃) / N of the fragment of each row, (rows,).

        Args:
            raw: q̃, (rows,), e.
            sums: Σ q̃, (fragments,), e.
            count: N, atoms, (fragments,).
            charge: Q, (fragments,), e.
            fragment: of each row, (rows,).
        """
        return raw + ((charge.to(sums.dtype) - sums) / count).index_select(0, fragment)

    @torch.jit.export
    def ratios(self, x: Tensor, species: Tensor) -> Tensor:
        """Hirshfeld volumes over those of free atoms, (rows,)."""
        return self.ratio_head(x, species)

    @torch.jit.export
    def self_derivatives(self, q: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
        """Energy of each charge in its own shifted potential, (atoms,) eV, and its derivative by q."""
        return self_terms(q, cutoff)

    @torch.jit.export
    def open_derivatives(self, q: Tensor, r: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of some atoms of an open structure, and derivatives by their q and r; see `open_sum`."""
        return open_sum(q, r, first, last)

    def whole_coulomb(self, q: Tensor, r: Tensor, cell: Tensor) -> LatticeDerivatives:
        """Coulomb energy of one structure without a cutoff: a lattice sum, or all pairs if it is open.

        `virial` is the part of the virial that does not follow from the derivatives by positions.
        """
        boundary = self.boundary if len(self.boundary) > 0 else boundary_of(cell)
        if boundary == "periodic":
            found = self.lattice_sum(q, r, cell)
            # `forces.evaluate` adds the part of the virial that follows from derivatives by positions
            rest = found.virial + r.t() @ found.positions.to(r.dtype)
            return LatticeDerivatives(found.energies, found.charges, found.positions, rest)
        if boundary == "mixed":
            raise RuntimeError(
                "[so3k] coulomb = kspace needs a box that is periodic in all directions, or in none: "
                "choose shifted+self, or make the box periodic"
            )
        energies, by_q, by_r = self.open_derivatives(q, r, 0, q.size(0))
        return LatticeDerivatives(energies, by_q, by_r, torch.zeros_like(cell))


def boundary_of(cell: Tensor) -> str:
    """Whether a cell (3, 3) has lattice vectors along all axes: "periodic", "open" or "mixed"."""
    periodic = (cell * cell).sum(1) > 0
    if bool(periodic.all()):
        return "periodic"
    return "mixed" if bool(periodic.any()) else "open"
