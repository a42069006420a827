"""Euclidean fast attention: attention between all atoms of a group at a cost linear in their number.

Frank, Chmiela, Müller & Unke, arXiv:2412.08541: plane waves on a Lebedev grid make the kernel sinc(ω r).
Waves of the reciprocal lattice are an extension: a band-limited kernel summed over all periodic images.
"""

import torch
from torch import Tensor, nn

from so3k_md.nn.linear import MLP, Linear
from so3k_md.nn.segment import segment_sum
from so3k_md.nn.spherical import DegreeSum

PAIRWISE = 512  # atoms of a group up to which pairs cost less than waves


class EuclideanFastAttention(nn.Module):
    """Δx_i = MLP(Σ_j K_ij v_j), Δχ_i^(l) = b_l(x_i) Σ_j K_ij c_l(x_j) χ_j^(l) over all atoms j of the group.

    K_ij = Σ_d κ_d(r_ij) [q_i0d k_j0d + Σ_l q_ild k_jld χ_i^(l)·χ_j^(l)] / sqrt(D (1 + m)), with q, k, v, b
    and c linear in x, κ_d the kernel of the waves and m the width of χ. Groups of more than PAIRWISE atoms
    sum Σ_j k_j ⊗ v_j for each wave, without arrays of pairs. Smaller groups compute K_ij of each pair, which
    takes less time and gives the same result.

    Args:
        features: F.
        degrees: L.
        width: D, even; two channels share a frequency.
        values: width of the invariant values.
        generator: of the initial weights.
    """

    part_of_component: Tensor

    def __init__(
        self, features: int, degrees: list[int], width: int, values: int, generator: torch.Generator
    ):
        super().__init__()
        parts = 1 + len(degrees)
        self.query = Linear(features, parts * width, generator)
        self.key = Linear(features, parts * width, generator)
        self.value = Linear(features, values + len(degrees), generator)
        self.gate = Linear(features, len(degrees), generator)
        self.out = MLP(values, features, features, generator)
        self.degree_sum = DegreeSum(degrees)
        self.degrees = degrees
        component = [0] + [1 + k for k, l in enumerate(degrees) for _ in range(2 * l + 1)]
        self.register_buffer("part_of_component", torch.tensor(component))
        self.parts = parts
        self.pairwise = PAIRWISE
        self.width = width
        self.values = values
        self.scale = (width * len(component)) ** -0.5

    def forward(
        self, x: Tensor, chi: Tensor, waves: Tensor, signed: Tensor, group: Tensor, n_groups: int
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to all atoms of whole groups."""
        return self.within(x, chi, waves, signed, blocks(group, size_counts(group, n_groups)))

    def within(
        self, x: Tensor, chi: Tensor, waves: Tensor, signed: Tensor, found: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """`forward` for groups that are sorted by size already, by `blocks`."""
        q, k, v = self.query(x) * self.scale, self.key(x), self.value_rows(x, chi)
        waves, signed = waves.to(x.dtype), signed.to(x.dtype)
        y = torch.zeros_like(v)
        for rows, groups in found:
            shape = [groups.numel(), rows.numel() // groups.numel(), -1]
            chi_block = chi.index_select(0, rows)
            k_waves, q_waves = waves.index_select(0, rows), signed.index_select(0, rows)
            q_block, k_block = q.index_select(0, rows), k.index_select(0, rows)
            v_block = v.index_select(0, rows).view(shape)
            if shape[1] <= self.pairwise:
                scores = self.scores(q_block, k_block, chi_block, q_waves, k_waves, shape)
                message = torch.bmm(scores, v_block)
            else:
                k_block = self.along_waves(k_block, chi_block, k_waves).view(shape)
                q_block = self.along_waves(q_block, chi_block, q_waves).view(shape)
                message = torch.bmm(q_block, torch.bmm(k_block.transpose(1, 2), v_block))
            y = y.index_copy(0, rows, message.flatten(0, 1))
        return self.messages(x, y)

    @torch.jit.export
    def sums(self, x: Tensor, chi: Tensor, waves: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """Σ_j k_j ⊗ v_j over the given atoms, (groups, waves · D · (1 + m) · (values + m))."""
        v = self.value_rows(x, chi)
        k = self.along_waves(self.key(x), chi, waves.to(x.dtype))
        total = torch.zeros([n_groups, k.size(1) * v.size(1)], dtype=x.dtype, device=x.device)
        for rows, groups in blocks(group, size_counts(group, n_groups)):
            k_block = k.index_select(0, rows).view(groups.numel(), -1, k.size(1))
            v_block = v.index_select(0, rows).view(groups.numel(), -1, v.size(1))
            total = total.index_copy(0, groups, torch.bmm(k_block.transpose(1, 2), v_block).flatten(1))
        return total

    @torch.jit.export
    def read(
        self, x: Tensor, chi: Tensor, signed: Tensor, group: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the atoms from the sums over whole groups."""
        q = self.along_waves(self.query(x) * self.scale, chi, signed.to(x.dtype))
        width = self.values + chi.size(1)
        y = torch.zeros([x.size(0), width], dtype=x.dtype, device=x.device)
        for rows, groups in blocks(group, size_counts(group, sums.size(0))):
            q_block = q.index_select(0, rows).view(groups.numel(), -1, q.size(1))
            found = torch.bmm(q_block, sums.index_select(0, groups).view(groups.numel(), -1, width))
            y = y.index_copy(0, rows, found.flatten(0, 1))
        return self.messages(x, y)

    def value_rows(self, x: Tensor, chi: Tensor) -> Tensor:
        """v_j and c_l(x_j) χ_j, (atoms, values + m)."""
        v = self.value(x)
        return torch.cat([v[:, : self.values], self.degree_sum.repeat(v[:, self.values :]) * chi], dim=1)

    def messages(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(Δx, Δχ) from Σ_j K_ij v_j."""
        return self.out(y[:, : self.values]), self.degree_sum.repeat(self.gate(x)) * y[:, self.values :]

    def along_waves(self, y: Tensor, chi: Tensor, waves: Tensor) -> Tensor:
        """q or k of each component of [1, χ] times each wave, (atoms, waves · D · (1 + m))."""
        components = torch.cat([torch.ones_like(chi[:, :1]), chi], dim=1)
        y = y.view(-1, self.parts, self.width).transpose(1, 2).index_select(2, self.part_of_component)
        # the innermost axis is the longest one that no wave depends on: short ones are slow to multiply
        y = (y * components[:, None, :]).view(-1, 1, self.width // 2, 2 * components.size(1))
        return (y * waves[:, :, :, None]).flatten(1)

    def scores(
        self, q: Tensor, k: Tensor, chi: Tensor, q_waves: Tensor, k_waves: Tensor, shape: list[int]
    ) -> Tensor:
        """K_ij of all pairs of groups of one size, (groups, atoms, atoms)."""
        m, n = shape[0], shape[1]
        channels = [m, n, self.parts, self.width // 2, 2]
        q_waves = q_waves.view(m, n, -1, self.width // 2).permute(0, 3, 1, 2)
        k_waves = k_waves.view(m, n, -1, self.width // 2).permute(0, 3, 2, 1)
        kernel = q_waves @ k_waves  # (groups, D / 2, atoms, atoms)
        total = torch.zeros_like(kernel[:, 0])
        q, k = q.view(channels).permute(0, 2, 3, 1, 4), k.view(channels).permute(0, 2, 3, 1, 4)
        first = 0
        for part in range(self.parts):
            score = ((q[:, part] @ k[:, part].transpose(2, 3)) * kernel).sum(1)
            if part > 0:
                last = first + 2 * self.degrees[part - 1] + 1
                chi_part = chi[:, first:last].view(m, n, -1)
                score = score * torch.bmm(chi_part, chi_part.transpose(1, 2))
                first = last
            total = total + score
        return total


def size_counts(group: Tensor, n_groups: int) -> list[tuple[int, int]]:
    """Each size of a group, in ascending order, and the number of groups of this size; the host reads these.

    Args:
        group: of each atom, (atoms,) int64 from 0.
        n_groups: number of groups, those without atoms included.
    """
    found: list[tuple[int, int]] = []
    sizes, counts = torch.unique(segment_sum(torch.ones_like(group), group, n_groups), return_counts=True)
    numbers: list[list[int]] = torch.stack([sizes, counts], dim=1).tolist()
    for size, count in numbers:
        found.append((size, count))
    return found


def blocks(group: Tensor, counts: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """The groups sorted by size, so that all groups of one size are one batched product.

    Args:
        group: of each atom, (atoms,) int64 from 0.
        counts: of `size_counts`.

    Returns:
        For each size above 0 the rows of atoms, group after group, and the numbers of the groups.
    """
    n_groups = 0
    for _, count in counts:
        n_groups += count
    size = segment_sum(torch.ones_like(group), group, n_groups)
    groups = torch.argsort(size, stable=True)
    rows = torch.argsort(size.index_select(0, group) * n_groups + group, stable=True)
    found: list[tuple[Tensor, Tensor]] = []
    row, first = 0, 0
    for n, count in counts:
        if n > 0:
            found.append((rows[row : row + n * count], groups[first : first + count]))
        row += n * count
        first += count
    return found
