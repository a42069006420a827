"""Atom-wise mixing of features and SPHCs at the end of a layer."""

import math

import torch
from torch import Tensor, nn

from so3k_md.nn.linear import Linear
from so3k_md.nn.spherical import CHI_INVARIANTS, DegreeSum, coupling


class LinearExchange(nn.Module):
    """[a, b] = Lin([x, c(χ)]); x + a, χ^(l) + b_l χ^(l) (Euclidean transformer, 2024, Eq. 24 and 25)."""

    def __init__(
        self,
        features: int,
        degrees: list[int],
        invariant: str,
        eps: float,
        parity: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        self.invariant = CHI_INVARIANTS[invariant](degrees, eps)
        self.linear = Linear(features + len(degrees), features + len(degrees), generator)
        self.degree_sum = DegreeSum(degrees)
        self.widths = [features, len(degrees)]

    def forward(self, x: Tensor, chi: Tensor) -> tuple[Tensor, Tensor]:
        """Updated features and SPHCs of each atom."""
        y = self.linear(torch.cat([x, self.invariant(chi)], dim=1))
        a, b = torch.split(y, self.widths, dim=1)
        return x + a, chi + self.degree_sum.repeat(b) * chi


class SelfMix(nn.Module):
    """χ̃^(l3) = Σ_{l1<l2} k_{l3 l1 l2} C(χ^(l1) ⊗ χ^(l2) → l3).

    With `parity` only couplings with even l1 + l2 + l3 are kept; without it true and pseudo tensors mix and
    a molecule differs from its mirror image.
    """

    left: Tensor
    right: Tensor
    couplings: Tensor
    paths: Tensor

    def __init__(self, degrees: list[int], parity: bool, generator: torch.Generator):
        super().__init__()
        n, width = len(degrees), sum(2 * l + 1 for l in degrees)
        starts = [sum(2 * l + 1 for l in degrees[:k]) for k in range(n)]
        left: list[int] = []
        right: list[int] = []
        paths: list[int] = []
        blocks: list[tuple[int, int, Tensor]] = []
        for p1 in range(n):
            for p2 in range(p1 + 1, n):
                l1, l2 = degrees[p1], degrees[p2]
                first = len(left)
                left += [starts[p1] + a for a in range(2 * l1 + 1) for _ in range(2 * l2 + 1)]
                right += [starts[p2] + b for _ in range(2 * l1 + 1) for b in range(2 * l2 + 1)]
                for p3, l3 in enumerate(degrees):
                    if abs(l1 - l2) <= l3 <= l1 + l2 and not (parity and (l1 + l2 + l3) % 2):
                        block = torch.from_numpy(coupling(l1, l2, l3)).reshape(-1, 2 * l3 + 1)
                        blocks.append((first, starts[p3], block))
                        paths.append((p3 * n + p1) * n + p2)
        couplings = torch.zeros(len(blocks), len(left), width, dtype=torch.float64)
        for path, (row, column, block) in enumerate(blocks):
            couplings[path, row : row + block.shape[0], column : column + block.shape[1]] = block
        self.register_buffer("left", torch.tensor(left, dtype=torch.int64))
        self.register_buffer("right", torch.tensor(right, dtype=torch.int64))
        self.register_buffer("paths", torch.tensor(paths, dtype=torch.int64))
        self.register_buffer("couplings", couplings.flatten(1))  # (paths, products · chi_width)
        self.shape = [len(left), width]
        # N(0, 0.1); all (l3, l1, l2) as published, although only those with l1 < l2 are read
        self.k = nn.Parameter(0.1 * torch.randn(n, n, n, generator=generator))

    def forward(self, chi: Tensor) -> Tensor:
        """(atoms, chi_width) to (atoms, chi_width)."""
        products = chi.index_select(1, self.left) * chi.index_select(1, self.right)
        return products @ self.matrix(chi)

    def matrix(self, like: Tensor) -> Tensor:
        """Σ_paths k C, (products, chi_width), in the precision of `like`."""
        weights = self.k.flatten().index_select(0, self.paths)[None, :]
        return torch.mm(weights, self.couplings.to(like.dtype)).view(self.shape)


class SelfMixExchange(nn.Module):
    """The 2022 interaction block.

    [a1, a2, b1, b2] = Lin([x, ‖χ‖]), a3 = Lin(‖χ̃‖), χ̃ = SelfMix(χ);
    x ← (x + a1 + a2 a3) / √3, χ^(l) ← χ^(l) + b1_l χ^(l) + b2_l χ̃^(l).
    """

    def __init__(
        self,
        features: int,
        degrees: list[int],
        invariant: str,
        eps: float,
        parity: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        n = len(degrees)
        self.invariant = CHI_INVARIANTS[invariant](degrees, eps)
        self.mix = SelfMix(degrees, parity, generator)
        self.linear = Linear(features + n, 2 * features + 2 * n, generator)
        self.mixed_linear = Linear(n, features, generator)
        self.degree_sum = DegreeSum(degrees)
        self.widths = [features, features, n, n]

    def forward(self, x: Tensor, chi: Tensor) -> tuple[Tensor, Tensor]:
        """Updated features and SPHCs of each atom."""
        mixed = self.mix(chi)
        y = self.linear(torch.cat([x, self.invariant(chi)], dim=1))
        a1, a2, b1, b2 = torch.split(y, self.widths, dim=1)
        a3 = self.mixed_linear(self.invariant(mixed))
        x = (x + a1 + a2 * a3) * (1.0 / math.sqrt(3.0))
        return x, chi + self.degree_sum.repeat(b1) * chi + self.degree_sum.repeat(b2) * mixed


INTERACTIONS: dict[str, type[nn.Module]] = {"selfmix": SelfMixExchange, "linear": LinearExchange}
