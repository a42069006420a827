"""Plane waves at the positions of atoms, from which Euclidean fast attention computes its kernels."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Number of points of a Lebedev grid -> its degree, and the b_max up to which the sinc kernel is exact
# (arXiv:2412.08541, Table S3).
GRIDS = {
    50: (11, 1.0 * math.pi),
    86: (15, 2.0 * math.pi),
    110: (17, 2.5 * math.pi),
    146: (19, 3.0 * math.pi),
    194: (23, 4.0 * math.pi),
    230: (25, 4.5 * math.pi),
    266: (27, 5.0 * math.pi),
    302: (29, 5.5 * math.pi),
    350: (31, 6.5 * math.pi),
    434: (35, 7.5 * math.pi),
    590: (41, 9.0 * math.pi),
    770: (47, 11.0 * math.pi),
    974: (53, 12.5 * math.pi),
    5810: (131, 35.0 * math.pi),
}
MARGIN = 0.04  # strain of a cell up to which its reserved waves serve; they are an eighth more than it has


class LebedevWaves(nn.Module):
    """cos and sin of ω_k u_g·r, ω_k = linspace(0, b_max) / L_max, one u of each pair ±u of a Lebedev grid.

    With the weights λ of the grid, Σ_g λ_g cos(ω u_g·r) = sinc(ω r) for r ≤ L_max. Each wave is multiplied by
    sqrt(|λ|). The grids of 230 and 266 points have negative weights; `signed` multiplies one of the two waves
    of a product by the sign.

    Args:
        n_frequencies: number of ω.
        grid: points of the grid, a key of GRIDS.
        reach: L_max, Å.
        k_max: not used here.
    """

    directions: Tensor
    frequencies: Tensor
    amplitude: Tensor
    sign: Tensor

    def __init__(self, n_frequencies: int, grid: int, reach: float, k_max: float):
        super().__init__()
        from scipy.integrate import lebedev_rule  # imported here because local models do not need scipy

        degree, b_max = GRIDS[grid]
        points, weights = (torch.from_numpy(array) for array in lebedev_rule(degree))
        points = points.T
        # of u and −u keep the one whose first nonzero coordinate is positive
        rounded = torch.round(points * 1e8)
        half = rounded[:, 0] * 4e20 + rounded[:, 1] * 2e10 + rounded[:, 2] > 0
        share = 2.0 * weights[half] / weights.sum()
        self.register_buffer("directions", points[half].contiguous())
        self.register_buffer("amplitude", torch.sqrt(share.abs()))
        self.register_buffer("sign", torch.sign(share))
        self.register_buffer(
            "frequencies", torch.linspace(0, b_max, n_frequencies, dtype=torch.float64) / reach
        )
        self.stretch = 1.0 / math.cos(_covering_angle(points.numpy()))

    def forward(self, r: Tensor, cell: Tensor, cell_of: Tensor) -> Tensor:
        """Positions (atoms, 3), Å, to the waves (atoms, 2 directions, frequencies), float64."""
        phase = (r @ self.directions.t())[:, :, None] * self.frequencies
        waves = torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)
        return waves * torch.cat([self.amplitude, self.amplitude])[:, None]

    def signed(self, waves: Tensor) -> Tensor:
        """The waves with the signs of the weights: Σ signed(r) · waves(r') is the kernel of r − r'."""
        return waves * torch.cat([self.sign, self.sign])[:, None]

    def reserve(self, cell: Tensor) -> None:
        """Nothing: these waves do not depend on the cell."""

    def outgrown(self, cell: Tensor) -> Tensor:
        """False, ()."""
        return torch.zeros([], dtype=torch.bool, device=cell.device)

    def support(self, r: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """Largest u·r and largest −u·r of each group for each direction u, (groups, 2 directions)."""
        along = r @ self.directions.t()
        both = torch.cat([along, -along], dim=1)
        lowest = torch.full([n_groups, both.size(1)], -float("inf"), dtype=both.dtype, device=both.device)
        return lowest.scatter_reduce(0, group[:, None].expand_as(both), both, "amax")

    def diameter(self, support: Tensor) -> Tensor:
        """An upper bound of the diameter of each group, (groups,), Å; some per cent above the diameter."""
        half = support.size(1) // 2
        return (support[:, :half] + support[:, half:]).amax(1) * self.stretch


class ReciprocalWaves(nn.Module):
    """a_k(|G|) cos G·r and a_k(|G|) sin G·r; one G of each pair ±G of the reciprocal lattice, |G| < k_max.

    Their products sum to (1/V) Σ_G a_k² exp(i G·(r − r')), a band-limited kernel of the distance summed over
    all images (Poisson), so that the result is extensive, the same for every image of an atom, invariant
    under rotation, and smooth when a G enters or leaves. The kernel at r = r' of an infinite cell is 1.

    Args:
        n_frequencies: number of kernels, bumps of |G| between 0 and k_max.
        grid: not used here.
        reach: not used here.
        k_max: 1/Å.
    """

    centres: Tensor
    scale: Tensor

    def __init__(self, n_frequencies: int, grid: int, reach: float, k_max: float):
        super().__init__()
        self.k_max = k_max
        self.width = k_max / n_frequencies
        self.register_buffer("centres", torch.linspace(0, k_max, n_frequencies + 1, dtype=torch.float64)[:-1])
        self.register_buffer("scale", torch.ones(n_frequencies, dtype=torch.float64))
        k = torch.linspace(0, k_max, 20001, dtype=torch.float64)
        at_zero = torch.trapezoid(self.bumps(k).square() * (k * k)[:, None], k, dim=0) / (2 * math.pi**2)
        self.scale = at_zero.rsqrt()
        self.margin = MARGIN
        self.reserved = torch.zeros([0, 3], dtype=torch.float64)  # whole numbers of G; empty: none are
        self.inverse = torch.eye(3, dtype=torch.float64)  # of the cell whose G they are

    def bumps(self, k: Tensor) -> Tensor:
        """a_k(|G|), (waves…, frequencies)."""
        bump = torch.exp(-0.5 * ((k[..., None] - self.centres) / self.width) ** 2)
        x = (k / self.k_max).clamp(max=1.0)
        return bump * self.scale * (0.5 + 0.5 * torch.cos(math.pi * x))[..., None]

    def forward(self, r: Tensor, cell: Tensor, cell_of: Tensor) -> Tensor:
        """Positions (atoms, 3), Å, in cells (cells, 3, 3) to the waves (atoms, 2 G, frequencies), float64."""
        inverse = torch.linalg.inv_ex(cell)[0]
        n = self.reserved if self.reserved.size(0) > 0 else self.lattice(cell)
        fractional = torch.bmm(r[:, None, :], inverse.index_select(0, cell_of)).squeeze(1)
        phase = 2 * math.pi * fractional @ n.t()
        g = 2 * math.pi * n @ inverse.transpose(1, 2)  # (cells, G, 3)
        # a smallest |G| keeps the derivative of the length finite at G = 0
        length = torch.sqrt((g * g).sum(2).clamp(min=1e-24))
        multiplicity = torch.where((n == 0).all(1), 1.0, 2.0)
        density = torch.sqrt(multiplicity / torch.linalg.det(cell).abs()[:, None])
        amplitude = (density[:, :, None] * self.bumps(length)).index_select(0, cell_of)
        waves = torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)
        return waves[:, :, None] * torch.cat([amplitude, amplitude], dim=1)

    def signed(self, waves: Tensor) -> Tensor:
        """The same waves: all weights are positive."""
        return waves

    def reserve(self, cell: Tensor) -> None:
        """Take the G of this cell (3, 3) for all cells that follow, until another one is reserved.

        Those with k_max ≤ |G| < (1 + margin) k_max are among them, with an amplitude of zero, so that cells
        with a strain below the margin lack none; see `outgrown`.
        """
        self.reserved = self.lattice(cell[None], 1.0 + self.margin)
        self.inverse = torch.linalg.inv(cell)

    def outgrown(self, cell: Tensor) -> Tensor:
        """Whether a cell (3, 3) may have a G below k_max that is not reserved, () bool on the device.

        With A the affine map from the reserved cell, |G| falls at most by the factor 1 / (1 + ‖A − 1‖_F).
        """
        unit = torch.eye(3, dtype=cell.dtype, device=cell.device)
        return ~(torch.linalg.matrix_norm(self.inverse @ cell - unit) <= self.margin)

    def lattice(self, cell: Tensor, share: float = 1.0) -> Tensor:
        """Whole numbers (G, 3), one of each pair ±n, of all G below share · k_max in any of the cells."""
        with torch.no_grad():
            # otherwise TorchScript would reuse this inverse, which has no autograd history, in `forward`
            cell = cell.clone()
            k_max = share * self.k_max
            reach = (k_max / (2 * math.pi) * torch.linalg.vector_norm(cell, dim=2)).amax(0)
            count = torch.floor(reach).to(torch.int64)
            a = torch.arange(0, int(count[0]) + 1, device=cell.device)
            b = torch.arange(-int(count[1]), int(count[1]) + 1, device=cell.device)
            c = torch.arange(-int(count[2]), int(count[2]) + 1, device=cell.device)
            n = torch.cartesian_prod(a, b, c)
            order = (n[:, 0] * b.numel() + n[:, 1]) * c.numel() + n[:, 2]
            n = n[order >= 0].to(cell.dtype)
            g = 2 * math.pi * n @ torch.linalg.inv(cell).transpose(1, 2)
            inside = (torch.linalg.vector_norm(g, dim=2) < k_max).any(0)
            return n[inside]

    def support(self, r: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """An empty result: these waves have no largest distance."""
        return torch.zeros([n_groups, 0], dtype=r.dtype, device=r.device)

    def diameter(self, support: Tensor) -> Tensor:
        """Zero for each group: periodic kernels have no largest distance."""
        return torch.zeros([support.size(0)], dtype=support.dtype, device=support.device)


def _covering_angle(points: NDArray[np.float64]) -> float:
    """The Voronoi radius of the points: the largest angle between a direction and the nearest point."""
    from scipy.spatial import SphericalVoronoi

    voronoi = SphericalVoronoi(points / np.linalg.norm(points, axis=1, keepdims=True))
    cosines = [
        (voronoi.vertices[region] @ point).min()
        for point, region in zip(voronoi.points, voronoi.regions, strict=True)
    ]
    return math.acos(min(cosines))


WAVES: dict[str, type[nn.Module]] = {"lebedev": LebedevWaves, "reciprocal": ReciprocalWaves}
