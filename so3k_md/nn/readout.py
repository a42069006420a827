"""Computes energy, charge and Hirshfeld ratio of each atom from its last features."""

import torch
from torch import Tensor, nn

from so3k_md.nn.linear import MLP, lecun_normal


class EnergyHead(nn.Module):
    """e_i = s[Z_i] MLP(x_i) + b[Z_i]; s and b are float64, because float32 rounds total energies too much."""

    scale: Tensor
    shift: Tensor

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.mlp = MLP(features, features, 1, generator)
        self.register_buffer("scale", torch.ones(n_species, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(n_species, dtype=torch.float64))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Features (atoms, features) and atomic numbers (atoms,) to energies (atoms,), float64, eV."""
        raw = self.mlp(x).squeeze(1).to(torch.float64)
        return self.scale.index_select(0, species) * raw + self.shift.index_select(0, species)


class ChargeHead(nn.Module):
    """q̃_i = MLP(x_i) + t[Z_i], charges that do not yet add up to the total charge."""

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.mlp = MLP(features, features, 1, generator)
        self.table = nn.Parameter(torch.zeros(n_species))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Features (atoms, features) and atomic numbers (atoms,) to charges (atoms,), e."""
        return self.mlp(x).squeeze(1) + self.table.index_select(0, species)


class RatioHead(nn.Module):
    """h_i = |s[Z_i] + q[Z_i] · MLP(x_i) / √D|, the Hirshfeld volume of an atom over that of the free atom."""

    def __init__(self, n_species: int, features: int, width: int, generator: torch.Generator):
        super().__init__()
        self.mlp = MLP(features, width, width, generator)
        self.query = lecun_normal(n_species, width, fan_in=width, generator=generator)
        self.shift = nn.Parameter(torch.ones(n_species))
        self.scale = width**-0.5

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Features (atoms, features) and atomic numbers (atoms,) to ratios (atoms,)."""
        product = (self.query.index_select(0, species) * self.mlp(x)).sum(1) * self.scale
        return torch.abs(self.shift.index_select(0, species) + product)
