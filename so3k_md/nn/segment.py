"""Sums over the pairs of each centre, and forces and virials from the gradients of pairs."""

import torch
from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """y_s = sum of the rows of `values` whose `index` is s.

    Args:
        values: rows to add, (rows, …).
        index: segment of each row, (rows,) int64.
        n_segments: number of segments; empty ones are zero.
    """
    total = torch.zeros([n_segments] + list(values.shape[1:]), dtype=values.dtype, device=values.device)
    return total.index_add(0, index, values)


def pair_forces(gradient: Tensor, idx_i: Tensor, idx_j: Tensor, n_atoms: int) -> Tensor:
    """F_i = Σ g_ij − Σ g_ji over the pairs in which an atom is centre and neighbor.

    Args:
        gradient: g, (pairs, 3), eV/Å.
        idx_i: centres, (pairs,).
        idx_j: neighbors, (pairs,).
        n_atoms: number of atoms.

    Returns:
        (n_atoms, 3), eV/Å.
    """
    return segment_sum(gradient, idx_i, n_atoms).index_add(0, idx_j, gradient, alpha=-1)


def outer_sum(a: Tensor, b: Tensor, frame: Tensor, atom: Tensor, n_frames: int) -> Tensor:
    """Σ a ⊗ b over the rows of each frame, (frames, 3, 3), float64.

    Args:
        a, b: (rows, 3).
        frame: of each atom, (atoms,).
        atom: of each row, (rows,).
        n_frames: number of frames.
    """
    a, b = a.to(torch.float64), b.to(torch.float64)
    if n_frames == 1:
        return (a.t() @ b)[None]
    return segment_sum(a[:, :, None] * b[:, None, :], frame.index_select(0, atom), n_frames)
