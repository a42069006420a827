"""The stages of physics in closed form: total charge, repulsion of nuclei, electrostatics and dispersion."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from so3k_md.adjoint import slope_only
from so3k_md.errors import So3kError
from so3k_md.graph import Graph
from so3k_md.nn.segment import outer_sum, pair_forces, segment_sum
from so3k_md.physics.coulomb import open_sum, self_terms
from so3k_md.physics.kspace import KSlopes
from so3k_md.physics.long_range import TAPER, LongSlopes

COULOMB = ("kspace", "shifted", "shifted+self")
CUTOFF_LR = 12.0  # Å, of dispersion and of the shifted forms of the Coulomb energy


class Assessment(NamedTuple):
    """What a model says of a graph, with the derivatives of long-range energies, which leave no tape."""

    energies: Tensor  # (atoms,), eV, float64
    positions: Tensor  # (atoms, 3), ∂E/∂r_i, eV/Å
    virial: Tensor  # (frames, 3, 3), what they leave out of it, eV
    charges: Tensor  # (atoms,), e
    ratios: Tensor  # (atoms,)
    parts: Tensor  # (atoms, 4), eV


class PhysicalStages(nn.Module):
    """What `So3krates` adds to its energies where a model is made of physics too, as SO3LR is.

    Charges and volumes follow from the last features; the energies of pairs follow from these with slopes in
    closed form, so that no pair beyond the cutoff is ever part of a tape.
    """

    if TYPE_CHECKING:  # the parts of So3krates; TorchScript would take them for attributes of its own
        has_totals: torch.jit.Final[bool]  # type: ignore[misc]
        has_zbl: torch.jit.Final[bool]  # type: ignore[misc]
        has_long_range: torch.jit.Final[bool]  # type: ignore[misc]
        charge_embedding: Any
        spin_embedding: Any
        embedding: Any
        repulsion: Any
        cutoff_function: Any
        charge_head: Any
        ratio_head: Any
        long_pairs: Any
        lattice_sum: Any
        readout: Any
        coulomb: str
        cutoff_lr: float
        share_eps: float

    @torch.jit.export
    def affinities(self, species: Tensor, totals: Tensor) -> Tensor:
        """By what atoms share the totals of their structure, charge and unpaired electrons, (rows, 2).

        Args:
            species: (rows,).
            totals: of the structure of each row, (rows, 2).
        """
        if self.has_totals:
            charge = self.charge_embedding.affinity(species, totals[:, 0])
            spin = self.spin_embedding.affinity(species, totals[:, 1])
            return torch.stack([charge, spin], dim=1)
        return torch.zeros_like(totals)

    @torch.jit.export
    def shares(self, affinities: Tensor, sums: Tensor, totals: Tensor, frame: Tensor) -> Tensor:
        """ψ y_i / Σ_j y_j of each row, (rows, 2).

        Args:
            affinities: y, (rows, 2).
            sums: Σ_j y_j, (frames, 2).
            totals: ψ, (frames, 2).
            frame: of each row, (rows,).
        """
        factor = totals.to(sums.dtype) / (sums + self.share_eps)
        return affinities * factor.index_select(0, frame)

    def total_shares(self, graph: Graph) -> Tensor:
        """What each atom of a graph has of the totals, for `embed`."""
        totals = torch.stack([graph.long.charge, graph.long.spin], dim=1)
        if not self.has_totals:
            return totals[:0]
        affinities = self.affinities(graph.species, totals.index_select(0, graph.frame))
        sums = segment_sum(affinities, graph.frame, totals.size(0))
        return self.shares(affinities, sums, totals, graph.frame)

    @torch.jit.export
    def close_repulsion(
        self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, species: Tensor, n_centres: int
    ) -> Tensor:
        """Repulsion of nuclei, (n_centres,), eV, float64.

        Args:
            vectors: r_j − r_i of the pairs within the cutoff, (pairs, 3), Å.
            idx_i: centre rows, (pairs,).
            idx_j: source rows, (pairs,).
            species: of all rows.
            n_centres: number of centre rows.
        """
        energies = torch.zeros([n_centres], dtype=torch.float64, device=vectors.device)
        if self.has_zbl:
            with torch.no_grad():
                square = (vectors * vectors).sum(1)
                near = torch.nonzero(square < self.repulsion.reach * self.repulsion.reach)[:, 0]
            v = vectors.index_select(0, near).to(self.embedding.weight.dtype)
            # a floor under the distance keeps energy and slope finite for atoms at the same place
            r = torch.sqrt((v * v).sum(1).clamp(min=1e-12))
            i, z = idx_i.index_select(0, near), species.to(torch.float64)
            z_i, z_j = z.index_select(0, i), z.index_select(0, idx_j.index_select(0, near))
            pairs = self.repulsion(r, z_i, z_j, self.cutoff_function(r))
            energies = energies.index_add(0, i, pairs.to(torch.float64))
        return energies

    @torch.jit.export
    def raw_charges(self, x: Tensor, species: Tensor) -> Tensor:
        """Charges (rows,), e, that do not yet add up."""
        if self.has_long_range:
            return self.charge_head(x, species)
        return x[:, 0]

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
        if self.has_long_range:
            return self.ratio_head(x, species)
        return x[:, 0]

    @torch.jit.export
    def long_slopes(
        self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, species: Tensor, q: Tensor, h: Tensor
    ) -> LongSlopes:
        """Energies of pairs within `cutoff_lr`, each given once, and their slopes; see `LongSlopes`."""
        if self.has_long_range:
            return self.long_pairs(vectors, idx_i, idx_j, species, q, h, self.coulomb, self.cutoff_lr)
        raise RuntimeError("[so3k] this model has no long-range physics")

    @torch.jit.export
    def self_slopes(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """What the shifted Coulomb sum lacks of each atom, (atoms,) eV, and its slope by q."""
        return self_terms(q, self.cutoff_lr)

    @torch.jit.export
    def wave_sums(self, q: Tensor, r: Tensor, cell: Tensor) -> Tensor:
        """Charges summed over the waves of a lattice, which add up over the ranks; see `LatticeSum`."""
        if self.has_long_range:
            return self.lattice_sum.sums(q, r, cell)
        raise RuntimeError("[so3k] this model has no long-range physics")

    @torch.jit.export
    def wave_slopes(self, q: Tensor, r: Tensor, cell: Tensor, sums: Tensor) -> KSlopes:
        """Energies and slopes of some atoms of a lattice from the sums over all, with the virial of all."""
        if self.has_long_range:
            return self.lattice_sum.read(q, r, cell, sums)
        raise RuntimeError("[so3k] this model has no long-range physics")

    @torch.jit.export
    def wave_virials(self, q: Tensor, r: Tensor, cell: Tensor, sums: Tensor) -> Tensor:
        """The parts (atoms, 3, 3) of some atoms of a lattice in that virial."""
        if self.has_long_range:
            return self.lattice_sum.virials(q, r, cell, sums)
        raise RuntimeError("[so3k] this model has no long-range physics")

    @torch.jit.export
    def open_slopes(self, q: Tensor, r: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of some atoms of an open structure, and slopes by their q and r; see `open_sum`."""
        return open_sum(q, r, first, last)

    def charged(self, graph: Graph, x: Tensor) -> Tensor:
        """Charges (atoms,) that add up to those of the fragments."""
        raw = self.raw_charges(x, graph.species)
        charge, fragment = graph.long.fragment_charge, graph.long.fragment
        n_fragments = charge.size(0)
        sums = segment_sum(raw, fragment, n_fragments)
        count = segment_sum(torch.ones_like(raw), fragment, n_fragments)
        return self.conserved(raw, sums, count, charge, fragment)

    def assess(self, x: Tensor, graph: Graph) -> Assessment:
        """The energies of all atoms from their last features x."""
        species, none = graph.species, x[:0, 0]
        n_atoms, n_frames = species.size(0), graph.cell.size(0)
        short = self.readout(x, species)
        close = self.close_repulsion(graph.vectors, graph.idx_i, graph.idx_j, species, n_atoms)
        if not self.has_long_range:
            still = torch.zeros_like(graph.positions)
            virial = torch.zeros([n_frames, 3, 3], dtype=torch.float64, device=x.device)
            parts = torch.stack([short, close, torch.zeros_like(short), torch.zeros_like(short)], dim=1)
            return Assessment(short + close, still, virial, none, none, parts)
        q_tape, h_tape = self.charged(graph, x), self.ratios(x, species)
        with torch.no_grad():
            q, h = q_tape.clone(), h_tape.clone()
            long = graph.long
            pairs = self.long_slopes(long.vectors, long.idx_i, long.idx_j, species, q, h)
            r_slopes, outer = self.tally(
                long.vectors, pairs.vectors, long.idx_i, long.idx_j, graph.frame, n_frames
            )
            atoms = torch.arange(n_atoms, device=x.device)
            virial = outer_sum(graph.positions, r_slopes, graph.frame, atoms, n_frames) - outer
            coulomb, q_slopes = pairs.energies[:, 0], pairs.charges
            if self.coulomb == "shifted+self":
                energies, slopes = self.self_slopes(q)
                coulomb, q_slopes = coulomb + energies, q_slopes + slopes
            elif self.coulomb == "kspace":
                for frame in range(n_frames):
                    mine = torch.nonzero(graph.frame == frame)[:, 0]
                    whole = self.whole_coulomb(
                        q.index_select(0, mine), graph.positions.index_select(0, mine), graph.cell[frame]
                    )
                    coulomb = coulomb.index_add(0, mine, whole.energies)
                    q_slopes = q_slopes.index_add(0, mine, whole.charges)
                    r_slopes = r_slopes.index_add(0, mine, whole.positions.to(r_slopes.dtype))
                    virial[frame] += whole.virial
        tape = slope_only(q_tape, q_slopes) + slope_only(h_tape, pairs.ratios)
        parts = torch.stack([short, close, coulomb, pairs.energies[:, 1]], dim=1)
        return Assessment(parts.sum(1) + tape, r_slopes, virial, q, h, parts)

    def tally(
        self, vectors: Tensor, slopes: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """∂E/∂r_i (atoms, 3) and Σ (r_j − r_i) ⊗ g_ij (frames, 3, 3) from the slopes g of pairs, float64.

        Args:
            vectors: r_j − r_i, (pairs, 3), Å.
            slopes: g, (pairs, 3), eV/Å.
            idx_i: (pairs,).
            idx_j: (pairs,).
            frame: of each atom, (atoms,).
            n_frames: number of frames.
        """
        g = slopes.to(torch.float64)
        return -pair_forces(g, idx_i, idx_j, frame.size(0)), outer_sum(vectors, g, frame, idx_i, n_frames)

    def whole_coulomb(self, q: Tensor, r: Tensor, cell: Tensor) -> KSlopes:
        """The Coulomb energy of one structure without any cutoff: over its lattice, or in the open.

        The virial is what slopes by the positions do not account for.
        """
        periodic = (cell * cell).sum(1) > 0
        if bool(periodic.all()):
            found = self.wave_slopes(q, r, cell, self.wave_sums(q, r, cell))
            # what the positions contribute to the virial is added to it with their slopes
            rest = found.virial + r.t() @ found.positions.to(r.dtype)
            return KSlopes(found.energies, found.charges, found.positions, rest)
        if bool(periodic.any()):
            raise RuntimeError(
                "[so3k] coulomb = kspace needs a box that is periodic in all directions, or in none: "
                "choose shifted+self, or make the box periodic"
            )
        energies, q_slopes, r_slopes = self.open_slopes(q, r, 0, q.size(0))
        return KSlopes(energies, q_slopes, r_slopes, torch.zeros_like(cell))


def set_long_range(model: Any, coulomb: str, cutoff_lr: float) -> None:
    """Choose the form of the Coulomb energy and where pairs end, in place; other models do not read them.

    Args:
        model: eager or exported.
        coulomb: one of COULOMB.
        cutoff_lr: Å.

    Raises:
        So3kError: neither is possible.
    """
    if coulomb not in COULOMB:
        raise So3kError(f"coulomb = {coulomb!r} is not known: choose one of {', '.join(COULOMB)}")
    if not (TAPER < cutoff_lr < float("inf")):
        raise So3kError(f"cutoff_lr = {cutoff_lr} Å is impossible: give a length above {TAPER:g}")
    model.coulomb = coulomb
    model.cutoff_lr = float(cutoff_lr)


def check_periodicity(model: Any, pbc: ArrayLike, where: str) -> None:
    """Refuse structures that are periodic along some axes only, over which a lattice sum cannot run."""
    periodic = np.asarray(pbc)
    if model.has_long_range and model.coulomb == "kspace" and periodic.any() and not periodic.all():
        raise So3kError(
            f"{where}: periodic along some axes only, which coulomb = kspace cannot do: choose shifted+self"
        )
