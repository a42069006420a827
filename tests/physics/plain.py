"""The energies of SO3LR as they are written down, pair by pair, and structures to try them on."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from so3k_md.structure.pairs import neighbor_pairs

KE, BOHR, HARTREE, FSC = 14.399645351950548, 0.5291772105638411, 27.211386245988, 0.0072973525693
FREE = {  # α⁰ and C6⁰ of H C N O F P S Cl
    1: (4.5, 6.5),
    6: (12.0, 46.6),
    7: (7.4, 24.2),
    8: (5.4, 15.6),
    9: (3.8, 9.52),
    15: (25.0, 185.0),
    16: (19.6, 134.0),
    17: (15.0, 94.6),
}
REFERENCE = Path(__file__).parents[1] / "reference" / "so3lr_parts.npz"
CELL = np.array([[7.0, 0.3, -0.5], [1.2, 6.5, 0.4], [-2.0, 1.0, 8.0]])


def half_pairs(positions, cell, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, idx_i and idx_j of every unordered pair once; a cell of zeros is open."""
    if np.any(cell):
        i, j, shifts = neighbor_pairs(positions, cell, True, cutoff)
    else:
        i, j = np.triu_indices(len(positions), 1)
        shifts = np.zeros((len(i), 3))
    x, y, z = shifts.T
    forward = (x > 0) | (x == 0) & ((y > 0) | (y == 0) & (z > 0))
    once = (i < j) | (i == j) & forward
    vectors = positions[j] + shifts @ cell - positions[i]
    return torch.tensor(vectors[once]), torch.tensor(i[once]), torch.tensor(j[once])


def atoms(n: int = 12) -> tuple[Tensor, np.ndarray, Tensor, Tensor]:
    """Atomic numbers, positions in CELL, charges without a sum and volumes of a disordered liquid."""
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[: 2 * n : 2] / 3
    positions = (grid + rng.uniform(-0.08, 0.08, grid.shape)) @ CELL
    q = torch.tensor(rng.normal(scale=0.4, size=n))
    species = torch.tensor([*FREE, *rng.choice(list(FREE), size=n - 8)])
    return species, positions, q - q.mean(), torch.tensor(rng.uniform(0.6, 1.1, n))


def switch(r: Tensor, on: float, off: float) -> Tensor:
    s = (r - on) / (off - on)
    # written with masks, for autograd makes NaN of exp(−1/0)
    inside = (s > 0) & (s < 1)
    t = torch.where(inside, s, 0.5)
    a, b = torch.exp(-1 / (1 - t)), torch.exp(-1 / t)
    return torch.where(inside, a / (a + b), (s <= 0).to(r.dtype))


def coulomb(r: Tensor, q_i: Tensor, q_j: Tensor, cutoff: float) -> Tensor:
    """Shifted energy of pairs."""
    c = torch.tensor(cutoff, dtype=torch.float64, requires_grad=True)
    v_c = torch.erf(c / 4) / c
    (dv_c,) = torch.autograd.grad(v_c, c)
    f = switch(r, 0.45 * cutoff, cutoff)
    k = torch.erf(r / 4) / r - v_c.detach() - (1 - f) * dv_c * (r - cutoff)
    return torch.where(r < cutoff, KE * q_i * q_j * k, torch.zeros_like(r))


def dispersion(r: Tensor, z_i: Tensor, z_j: Tensor, h_i: Tensor, h_j: Tensor, cutoff: float) -> Tensor:
    """Energy of pairs."""
    table = torch.zeros(18, 2, dtype=r.dtype)
    for z, row in FREE.items():
        table[z] = torch.tensor(row, dtype=r.dtype)
    a_i, a_j = table[z_i, 0] * h_i, table[z_j, 0] * h_j
    c6_i, c6_j = table[z_i, 1] * h_i**2, table[z_j, 1] * h_j**2
    a = (a_i + a_j) / 2
    c6 = 2 * c6_i * c6_j * a_i * a_j / (a_i**2 * c6_j + a_j**2 * c6_i)
    radius = FSC ** (-4 / 21) * a ** (1 / 7)
    s = -0.00433008 + 0.24428889 * radius + 0.04125273 * radius**2 - 0.00078893 * radius**3
    gamma = 1 / (2 * s**2)
    p, d = 1.2 * 2 * 2.54 * a ** (1 / 7), r / BOHR
    series = c6 / (d**6 + p**6) + 5 * c6 / gamma / (d**8 + p**8)
    series = series + 245 / 8 * c6 / gamma**2 / (d**10 + p**10)
    return -HARTREE * series * switch(r, cutoff - 2, cutoff)
