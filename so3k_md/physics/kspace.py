"""Electrostatics of a periodic cell by a lattice sum, exact without pairs because erf(r/σ)/r is smooth."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.physics.coulomb import KE, SIGMA
from so3k_md.physics.tiling import tile_on

K_MAX = 2.5  # 1/Å, where exp(−4 k²) is 1e-11
TILE = 262144  # waves times atoms computed at once; they fit the cache of a core


class LatticeDerivatives(NamedTuple):
    """The energy of some atoms of a cell, and its derivatives."""

    energies: Tensor  # (atoms,), eV, float64
    charges: Tensor  # (atoms,), ∂E/∂q, eV/e
    positions: Tensor  # (atoms, 3), ∂E/∂r, eV/Å
    virial: Tensor  # (3, 3), −∂E/∂strain of the whole cell, eV, float64


class Lattice(NamedTuple):
    """One k of each pair ±k as k = n_x b_x + n_y b_y ± n_z b_z with n_z ≥ 0; a column is one (n_x, n_y)."""

    inverse: Tensor  # (3, 3), fractional coordinates are r @ inverse
    reach: list[int]  # largest n_x, n_y, n_z
    columns: Tensor  # (columns, 2) int64, n_x and n_y
    k: Tensor  # (2, columns, n_z, 3), k for +n_z and −n_z, 1/Å
    weight: Tensor  # (2, columns, n_z), eV/e²; zero for entries that are no k of this half of space


class LatticeSum(nn.Module):
    """E = k_e [2π/V Σ_{k≠0} exp(−σ²k²/4)/k² |S(k)|² − 1/(√π σ) Σ q²], S(k) = Σ_j q_j exp(i k·r_j), σ = 4 Å.

    This is the energy of smeared charges and all their images. k = 0 is left out, so that a uniform
    background neutralises a charged cell. A wave is a product of one factor for each axis; matrix products
    sum these over the atoms, without a pair list and without a cosine of each wave. `sums` of parts of a cell
    add up.

    Args:
        k_max: longest k, 1/Å.
    """

    def __init__(self, k_max: float = K_MAX):
        super().__init__()
        self.k_max = k_max
        self.tile = TILE
        self.ke = KE
        self.sigma = SIGMA

    def forward(self, q: Tensor, r: Tensor, cell: Tensor) -> LatticeDerivatives:
        """Energies and derivatives of a whole cell.

        Args:
            q: charges, (atoms,), e; waves are computed in their dtype.
            r: positions in any image, (atoms, 3), Å, float64.
            cell: lattice vectors as rows, (3, 3), Å, float64.
        """
        return self.read(q, r, cell, self.sums(q, r, cell))

    @torch.jit.export
    def sums(self, q: Tensor, r: Tensor, cell: Tensor) -> Tensor:
        """Σ_j q_j {cos, sin}(n_x θ_x + n_y θ_y) {cos, sin}(n_z θ_z), θ = 2π r·b, (2 columns, 2 n_z), float64.

        Args:
            q: charges of some atoms of the cell, (atoms,), e.
            r: (atoms, 3), Å.
            cell: (3, 3), Å.
        """
        lattice = self.lattice(cell)
        total = torch.zeros(
            [2 * lattice.columns.size(0), 2 * lattice.reach[2] + 2], dtype=torch.float64, device=q.device
        )
        step = max(1, tile_on(q, self.tile) // max(1, 2 * lattice.columns.size(0)))
        for start in range(0, q.size(0), step):
            plane, along = self.waves(lattice, r[start : start + step], q.dtype)
            total += ((plane * q[start : start + step]) @ along.t()).to(torch.float64)
        return total

    @torch.jit.export
    def read(self, q: Tensor, r: Tensor, cell: Tensor, sums: Tensor) -> LatticeDerivatives:
        """Energies and derivatives of some atoms in the potential of all.

        Args:
            q: charges of these atoms, (atoms,), e.
            r: (atoms, 3), Å.
            cell: (3, 3), Å.
            sums: of all atoms of the cell.
        """
        lattice = self.lattice(cell)
        factors = self.structure_factors(sums)
        potential = self.potential(factors, lattice.weight)
        # dφ/dθ_z turns (cos, sin)(n_z θ_z) into n_z (−sin, cos)
        n_z = torch.arange(lattice.reach[2] + 1, dtype=torch.float64, device=q.device)
        by_cos, by_sin = potential.chunk(2, dim=1)
        turned = torch.cat([n_z * by_sin, -n_z * by_cos], dim=1)
        both = torch.cat([potential, turned]).to(q.dtype)
        columns = lattice.columns.t().to(q.dtype)
        phi, derivative = torch.empty_like(q), torch.empty([3, q.size(0)], dtype=q.dtype, device=q.device)
        step = max(1, tile_on(q, self.tile) // max(1, 2 * lattice.columns.size(0)))
        for start in range(0, q.size(0), step):
            stop = min(start + step, q.size(0))
            plane, along = self.waves(lattice, r[start:stop], q.dtype)
            u, u_z = (both @ along).chunk(2)
            (cos, sin), (u_cos, u_sin) = plane.chunk(2), u.chunk(2)
            phi[start:stop] = (plane * u).sum(0)
            derivative[:2, start:stop] = columns @ (cos * u_sin - sin * u_cos)
            derivative[2, start:stop] = (plane * u_z).sum(0)
        by_fraction = (2.0 * math.pi * q * derivative).t().to(lattice.inverse.dtype)
        own = self.ke / (math.sqrt(math.pi) * self.sigma) * q
        return LatticeDerivatives(
            energies=(q * (0.5 * phi - own)).to(torch.float64),
            charges=phi - 2.0 * own,
            positions=(by_fraction @ lattice.inverse.t()).to(q.dtype),
            virial=self.virial(factors, lattice),
        )

    @torch.jit.export
    def virials(self, q: Tensor, r: Tensor, cell: Tensor, sums: Tensor) -> Tensor:
        """Contributions of some atoms to the virial, half of each pair and image, (atoms, 3, 3), eV, float64.

        W_i = ½ q_i Re Σ_k w_k S(k)* exp(i k·r_i) [1 − (σ²/2 + 2/k²) k ⊗ k], the waves of −r ⊗ ∂V/∂r.

        Args:
            q, r, cell, sums: as in `read`.
        """
        lattice = self.lattice(cell)
        stretch, factors = self.stretch(lattice), self.structure_factors(sums)
        parts: list[Tensor] = []
        for a in range(3):
            for b in range(3):
                along_both = lattice.k[..., a] * lattice.k[..., b]
                part = (1.0 if a == b else 0.0) - stretch * along_both
                parts.append(self.potential(factors, lattice.weight * part))
        potentials = torch.cat(parts).to(q.dtype)
        found = torch.empty([q.size(0), 9], dtype=q.dtype, device=q.device)
        step = max(1, tile_on(q, self.tile) // max(1, 2 * lattice.columns.size(0)))
        for start in range(0, q.size(0), step):
            stop = min(start + step, q.size(0))
            plane, along = self.waves(lattice, r[start:stop], q.dtype)
            u = (potentials @ along).view([9, plane.size(0), plane.size(1)])
            found[start:stop] = (plane * u).sum(1).t()
        return (0.5 * q[:, None] * found).to(torch.float64).view([-1, 3, 3])

    def lattice(self, cell: Tensor) -> Lattice:
        """All k shorter than k_max of one half of space, with 2 · k_e 2π/V exp(−σ²k²/4)/k²."""
        cell = cell.to(torch.float64)
        inverse = torch.linalg.inv(cell)
        lengths = torch.linalg.vector_norm(cell, dim=1)
        reach: list[int] = torch.floor(self.k_max / (2 * math.pi) * lengths).to(torch.int64).tolist()
        n_x = torch.arange(reach[0] + 1, device=cell.device)
        n_y = torch.arange(-reach[1], reach[1] + 1, device=cell.device)
        n_z = torch.arange(reach[2] + 1, device=cell.device)
        columns = torch.cartesian_prod(n_x, n_y)
        b = 2.0 * math.pi * inverse.t()
        in_plane, up = columns.to(cell.dtype) @ b[:2], n_z.to(cell.dtype)[:, None] * b[2]
        k = torch.stack([in_plane[:, None] + up, in_plane[:, None] - up])
        k2 = (k * k).sum(3)
        # of ±k keep the one whose first nonzero coordinate is positive; −n_z is another k unless n_z = 0
        order = columns[:, 0] * (2 * reach[1] + 1) + columns[:, 1]
        once = torch.stack(
            [(order[:, None] > 0) | (order[:, None] == 0) & (n_z > 0), (order[:, None] > 0) & (n_z > 0)]
        )
        inside = once & (k2 < self.k_max**2)
        k2 = torch.where(inside, k2, 1.0)
        weight = (
            4.0
            * math.pi
            * self.ke
            / torch.linalg.det(cell).abs()
            * torch.exp(-0.25 * self.sigma**2 * k2)
            / k2
        )
        used = torch.nonzero(inside.any(2).any(0))[:, 0]
        weight = torch.where(inside, weight, 0.0)
        return Lattice(
            inverse,
            reach,
            columns.index_select(0, used),
            k.index_select(1, used),
            weight.index_select(1, used),
        )

    def waves(self, lattice: Lattice, r: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """{cos, sin}(n_x θ_x + n_y θ_y), (2 columns, atoms), and {cos, sin}(n_z θ_z), (2 n_z, atoms)."""
        fraction = (r.to(torch.float64) @ lattice.inverse).t()
        theta = 2.0 * math.pi * (fraction - torch.floor(fraction))
        reach = lattice.reach
        n = torch.arange(
            -reach[1], max(reach[0], reach[1], reach[2]) + 1, dtype=torch.float64, device=r.device
        )
        zero = reach[1]
        x = n[zero : zero + reach[0] + 1, None] * theta[0]
        y = n[: 2 * reach[1] + 1, None] * theta[1]
        z = n[zero : zero + reach[2] + 1, None] * theta[2]
        i, j = lattice.columns[:, 0], lattice.columns[:, 1] + reach[1]
        cos_x, sin_x = torch.cos(x).to(dtype).index_select(0, i), torch.sin(x).to(dtype).index_select(0, i)
        cos_y, sin_y = torch.cos(y).to(dtype).index_select(0, j), torch.sin(y).to(dtype).index_select(0, j)
        plane = torch.cat([cos_x * cos_y - sin_x * sin_y, sin_x * cos_y + cos_x * sin_y])
        return plane, torch.cat([torch.cos(z), torch.sin(z)]).to(dtype)

    def potential(self, factors: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
        """∂/∂sums of Σ_k w_k |S(k)|², which gives the potential at each atom; w is (2, columns, n_z)."""
        real, imaginary = factors
        real, imaginary = 2.0 * weight * real, 2.0 * weight * imaginary
        by_cos = torch.cat([real[0] + real[1], imaginary[0] - imaginary[1]], dim=1)
        by_sin = torch.cat([imaginary[0] + imaginary[1], real[1] - real[0]], dim=1)
        return torch.cat([by_cos, by_sin])

    def virial(self, factors: tuple[Tensor, Tensor], lattice: Lattice) -> Tensor:
        """−∂E/∂strain at constant fractional coordinates, (3, 3), eV."""
        real, imaginary = factors
        energy = lattice.weight * (real * real + imaginary * imaginary)
        k = lattice.k.reshape(-1, 3)
        stretch = (energy * self.stretch(lattice)).reshape(-1, 1)
        return energy.sum() * torch.eye(3, dtype=k.dtype, device=k.device) - (stretch * k).t() @ k

    def structure_factors(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of S(k), (2, columns, n_z), from the sums of products of waves."""
        cos, sin = sums.chunk(2)
        (cos_cos, cos_sin), (sin_cos, sin_sin) = cos.chunk(2, dim=1), sin.chunk(2, dim=1)
        real = torch.stack([cos_cos - sin_sin, cos_cos + sin_sin])
        return real, torch.stack([sin_cos + cos_sin, sin_cos - cos_sin])

    def stretch(self, lattice: Lattice) -> Tensor:
        """σ²/2 + 2/k², the factor of k ⊗ k in the virial of a wave, (2, columns, n_z)."""
        return 0.5 * self.sigma**2 + 2.0 / (lattice.k * lattice.k).sum(3).clamp(min=1e-12)
