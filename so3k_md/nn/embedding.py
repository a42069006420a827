"""The first features and the first spherical harmonic coordinates of each atom."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from so3k_md.graph import Graph
from so3k_md.nn.linear import ResidualMLP, lecun_normal
from so3k_md.nn.segment import segment_sum
from so3k_md.reads import reads_are_free


class AtomEmbedding(nn.Module):
    """x_i = E[Z_i], a learned row for each atomic number."""

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.weight = lecun_normal(n_species, features, fan_in=features, generator=generator)

    def forward(self, species: Tensor) -> Tensor:
        """(rows,) int64 to (rows, features)."""
        return self.weight.index_select(0, species)


class TotalEmbedding(nn.Module):
    """Features from ψ of the whole structure: its total charge or its number of unpaired electrons.

    e_i = ψ y_i / Σ_j y_j · v_r, y_i = log(1 + exp(q[Z_i] · k_r / √F)), followed by a residual MLP without
    biases; r is 1 if ψ is negative, else 0. ψ = 0 gives zeros. Source: SpookyNet (Unke et al., Nat.
    Commun. 12, 7273 (2021)), SO3LR.
    """

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.query = lecun_normal(n_species, features, fan_in=features, generator=generator)
        self.key = lecun_normal(2, features, fan_in=features, generator=generator)
        self.value = lecun_normal(2, features, fan_in=features, generator=generator)
        self.mlp = ResidualMLP(features, generator, bias=False)
        self.scale = 1.0 / math.sqrt(features)

    def affinity(self, species: Tensor, total: Tensor) -> Tensor:
        """y of atoms (rows,) in structures with ψ (rows,); only the sign of ψ matters."""
        key = self.key.index_select(0, (total < 0).to(torch.int64))
        return functional.softplus((self.query.index_select(0, species) * key).sum(1) * self.scale)

    def forward(self, share: Tensor) -> Tensor:
        """Shares ψ y_i / Σ_j y_j of the atoms, (rows,), to features (rows, features)."""
        return self.mlp(share[:, None] * self.value.index_select(0, (share < 0).to(torch.int64)))


class ChargeAndSpin(nn.Module):
    """x ← (x + e^charge + e^spin) / sqrt(n), where n − 1 is the number of embeddings that a model has.

    Args:
        charge: embedding of the total charge, or None.
        spin: embedding of the number of unpaired electrons, or None.
    """

    def __init__(self, charge: TotalEmbedding | None, spin: TotalEmbedding | None):
        super().__init__()
        self.charge_embedding = charge
        self.spin_embedding = spin
        self.scale = (1 + int(charge is not None) + int(spin is not None)) ** -0.5
        self.eps = 0.0  # added to Σ_j y_j; so3krates-torch has a value above zero

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Features (rows, F) of atoms with these shares (rows, 2)."""
        # zeros are added to neutral singlets, which most structures are
        if not reads_are_free(shares) or bool(shares.any()):
            charge, spin = shares.to(x.dtype).unbind(1)
            if self.charge_embedding is not None:
                x = x + self.charge_embedding(charge)
            if self.spin_embedding is not None:
                x = x + self.spin_embedding(spin)
        return x * self.scale

    @torch.jit.export
    def affinities(self, species: Tensor, psi: Tensor) -> Tensor:
        """y of each atom for the total charge and for the unpaired electrons, (rows, 2).

        Args:
            species: (rows,).
            psi: total charge and unpaired electrons of the structure of each row, (rows, 2).
        """
        charge = spin = torch.ones_like(psi[:, 0])
        if self.charge_embedding is not None:
            charge = self.charge_embedding.affinity(species, psi[:, 0])
        if self.spin_embedding is not None:
            spin = self.spin_embedding.affinity(species, psi[:, 1])
        return torch.stack([charge, spin], dim=1)

    @torch.jit.export
    def shares(self, affinities: Tensor, sums: Tensor, psi: Tensor, frame: Tensor) -> Tensor:
        """ψ y_i / Σ_j y_j of each row, (rows, 2).

        Args:
            affinities: y, (rows, 2).
            sums: Σ_j y_j, (frames, 2).
            psi: ψ, (frames, 2).
            frame: of each row, (rows,).
        """
        factor = psi.to(sums.dtype) / (sums + self.eps)
        return affinities * factor.index_select(0, frame)

    def of_graph(self, graph: Graph) -> Tensor:
        """Shares of the atoms of a graph, (atoms, 2)."""
        psi = torch.stack([graph.long.charge, graph.long.spin], dim=1)
        if reads_are_free(psi) and not bool(psi.any()):
            return torch.zeros([graph.species.size(0), 2], dtype=psi.dtype, device=psi.device)
        affinities = self.affinities(graph.species, psi.index_select(0, graph.frame))
        sums = segment_sum(affinities, graph.frame, psi.size(0))
        return self.shares(affinities, sums, psi, graph.frame)
