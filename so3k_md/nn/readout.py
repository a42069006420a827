"""From the last features to the energy of each atom."""

import torch
from torch import Tensor, nn

from so3k_md.nn.linear import MLP


class EnergyHead(nn.Module):
    """e_i = s[Z_i] MLP(x_i) + b[Z_i]; s and b are float64, as total energies have no room in float32."""

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
