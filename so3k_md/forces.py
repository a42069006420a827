"""Energies, forces and virial of a graph from one derivative, dE / d(r_j − r_i)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.graph import Graph
from so3k_md.nn.segment import segment_sum


class Evaluation(NamedTuple):
    """What a model says of a batch, in eV and Å."""

    energies: Tensor  # (atoms,)
    energy: Tensor  # (frames,)
    forces: Tensor  # (atoms, 3)
    virial: Tensor  # (frames, 3, 3); stress in the sign of ASE is −virial / volume


def edge_gradient(energies: Tensor, vectors: Tensor, differentiable: bool) -> Tensor:
    """g_ij = ∂E/∂(r_j − r_i), from which forces and virial both follow.

    Args:
        energies: (atoms,), eV.
        vectors: (pairs, 3), Å, requiring a gradient.
        differentiable: keep the graph, for training on forces.

    Returns:
        (pairs, 3), eV/Å.
    """
    gradient = torch.autograd.grad([energies.sum()], [vectors], create_graph=differentiable)[0]
    assert gradient is not None, "the energy does not depend on the geometry"
    return gradient


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


def evaluate(
    model: Callable[[Graph], Tensor], graph: Graph, n_frames: int, differentiable: bool = False
) -> Evaluation:
    """Energies, forces F and virial W = −Σ r ⊗ g of every frame.

    Args:
        model: an eager, scripted or exported model.
        graph: one structure or a batch.
        n_frames: number of structures in it.
        differentiable: let gradients pass through the forces, for training.
    """
    vectors = graph.vectors.detach().requires_grad_()
    energies = model(Graph(graph.species, vectors, graph.idx_i, graph.idx_j, graph.frame))
    gradient = edge_gradient(energies, vectors, differentiable)
    forces = pair_forces(gradient, graph.idx_i, graph.idx_j, graph.species.numel())
    frame_of_pair = graph.frame.index_select(0, graph.idx_i)
    virial = -segment_sum(graph.vectors[:, :, None] * gradient[:, None, :], frame_of_pair, n_frames)
    energies = energies if differentiable else energies.detach()
    energy = segment_sum(energies, graph.frame, n_frames)
    return Evaluation(energies, energy, forces, virial)
