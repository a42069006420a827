"""Energies, forces and virial of a graph from the derivatives of its energy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from so3k_md.graph import Graph, Slopes
from so3k_md.nn.segment import segment_sum


class Evaluation(NamedTuple):
    """What a model says of a batch, in eV and Å."""

    energies: Tensor  # (atoms,)
    energy: Tensor  # (frames,)
    forces: Tensor  # (atoms, 3)
    virial: Tensor  # (frames, 3, 3); stress in the sign of ASE is −virial / volume


def pair_forces(gradient: Tensor, idx_i: Tensor, idx_j: Tensor, n_atoms: int) -> Tensor:
    """F_i = Σ g_ij − Σ g_ji over the pairs in which an atom is centre and neighbour.

    Args:
        gradient: g, (pairs, 3), eV/Å.
        idx_i: centres, (pairs,).
        idx_j: neighbours, (pairs,).
        n_atoms: number of atoms.

    Returns:
        (n_atoms, 3), eV/Å.
    """
    return segment_sum(gradient, idx_i, n_atoms) - segment_sum(gradient, idx_j, n_atoms)


def evaluate(model: Any, graph: Graph, n_frames: int, differentiable: bool = False) -> Evaluation:
    """Energies, forces F and virial W of every frame.

    F_i = Σ g_ij − Σ g_ji − ∂E/∂r_i and W = −Σ (r_j − r_i) ⊗ g_ij − Σ r_i ⊗ ∂E/∂r_i − cellᵀ ∂E/∂cell, of which
    the derivatives by r_i and cell come from attention beyond the cutoff.

    Args:
        model: an eager, scripted or exported model.
        graph: one structure or a batch.
        n_frames: number of structures in it.
        differentiable: let gradients pass through the forces, for training.
    """
    slopes = differentiable_slopes(model, graph) if differentiable else model.gradient(graph)
    energies, g_vectors, g_positions, g_cell = slopes
    forces = pair_forces(g_vectors, graph.idx_i, graph.idx_j, graph.species.numel()) - g_positions
    frame_of_pair = graph.frame.index_select(0, graph.idx_i)
    virial = -segment_sum(graph.vectors[:, :, None] * g_vectors[:, None, :], frame_of_pair, n_frames)
    virial = virial - segment_sum(
        graph.positions[:, :, None] * g_positions[:, None, :], graph.frame, n_frames
    )
    virial = virial - graph.cell.transpose(1, 2) @ g_cell
    energy = segment_sum(energies, graph.frame, n_frames)
    return Evaluation(energies, energy, forces, virial)


def differentiable_slopes(model: Callable[[Graph], Tensor], graph: Graph) -> Slopes:
    """What `So3krates.gradient` gives, with the graph kept so that training can go through the forces."""
    leaves = [tensor.detach().requires_grad_() for tensor in (graph.vectors, graph.positions, graph.cell)]
    vectors, positions, cell = leaves
    energies = model(graph._replace(vectors=vectors, positions=positions, cell=cell))
    slopes = torch.autograd.grad(
        [energies.sum()], leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return Slopes(energies, *slopes)
