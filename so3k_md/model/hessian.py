"""Computes the second derivatives of the energy by the positions of the atoms."""

from typing import Any

import torch
from torch import Tensor

from so3k_md.graph import Graph


def hessian(model: Any, graph: Graph) -> Tensor:
    """H = ∂²E/∂r∂r of one structure by double backward, (3 atoms, 3 atoms), eV/Å², symmetric up to rounding.

    The gradient of the energy is differentiated once more, row by row. Its parts in closed form, of
    electrostatics and dispersion, keep their history by positions, charges and Hirshfeld ratios. An atom of a
    periodic cell moves with all of its images.

    Args:
        model: eager and plain; rows are as exact as the precision of its parameters.
        graph: one structure.
    """
    n_atoms = graph.species.numel()
    shifts = torch.zeros((n_atoms, 3), dtype=torch.float64, device=graph.vectors.device, requires_grad=True)
    with torch.enable_grad():
        gradient = gradient_at(model, graph, shifts).reshape(-1)
        rows = [
            torch.autograd.grad(component, shifts, retain_graph=True, materialize_grads=True)[0].reshape(-1)
            for component in gradient
        ]
    return torch.stack(rows)


def gradient_at(model: Any, graph: Graph, shifts: Tensor) -> Tensor:
    """∂E/∂r of a graph whose atoms are shifted, (atoms, 3), eV/Å, with the history of the shifts.

    Args:
        model: eager and plain.
        graph: one structure.
        shifts: of the atoms from their positions in the graph, (atoms, 3), Å, a leaf.
    """

    def between(idx_i: Tensor, idx_j: Tensor) -> Tensor:
        return shifts.index_select(0, idx_j) - shifts.index_select(0, idx_i)

    long = graph.long
    moved = graph._replace(
        vectors=graph.vectors + between(graph.idx_i, graph.idx_j),
        positions=graph.positions + shifts,
        long=long._replace(vectors=long.vectors + between(long.idx_i, long.idx_j)),
    )
    found = model.energies.differentiable(model.representation(moved), moved)
    energy = found.outputs.energies.sum()
    (gradient,) = torch.autograd.grad(energy, shifts, create_graph=True, materialize_grads=True)
    return gradient + found.positions
