"""Energies, forces and virial of a graph from the derivatives of its energy."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from so3k_md.errors import So3kError
from so3k_md.graph import Graph, Slopes
from so3k_md.nn.segment import outer_sum, pair_forces, segment_sum


class Evaluation(NamedTuple):
    """What a model says of a batch, in eV, Å and e; charges and ratios are empty where it has none."""

    energies: Tensor  # (atoms,)
    energy: Tensor  # (frames,)
    forces: Tensor  # (atoms, 3)
    virial: Tensor  # (frames, 3, 3); stress in the sign of ASE is −virial / volume
    charges: Tensor  # (atoms,)
    ratios: Tensor  # (atoms,), Hirshfeld volumes over those of free atoms
    parts: Tensor  # (atoms, 4), the energies by `graph.PARTS`


def evaluate(model: Any, graph: Graph, n_frames: int, differentiable: bool = False) -> Evaluation:
    """Energies, forces F and virial W of every frame.

    F_i = Σ g_ij − Σ g_ji − ∂E/∂r_i and W = W_rest − Σ (r_j − r_i) ⊗ g_ij − Σ r_i ⊗ ∂E/∂r_i − cellᵀ ∂E/∂cell,
    of which the derivatives by r_i and cell come from attention beyond the cutoff, electrostatics and
    dispersion, and W_rest is what those by r_i leave out.

    Args:
        model: an eager, scripted or exported model.
        graph: one structure or a batch.
        n_frames: number of structures in it.
        differentiable: let gradients pass through the forces, for training.
    """
    slopes = differentiable_slopes(model, graph) if differentiable else model.gradient(graph)
    n_atoms = graph.species.numel()
    forces = pair_forces(slopes.vectors, graph.idx_i, graph.idx_j, n_atoms) - slopes.positions
    virial = slopes.virial - graph.cell.transpose(1, 2) @ slopes.cell
    virial = virial - outer_sum(graph.vectors, slopes.vectors, graph.frame, graph.idx_i, n_frames)
    atoms = torch.arange(n_atoms, device=graph.frame.device)
    virial = virial - outer_sum(graph.positions, slopes.positions, graph.frame, atoms, n_frames)
    energy = segment_sum(slopes.energies, graph.frame, n_frames)
    return Evaluation(slopes.energies, energy, forces, virial, slopes.charges, slopes.ratios, slopes.parts)


def check_finite(result: Evaluation, graph: Graph) -> None:
    """Refuse energies, forces, virials and charges that are no numbers.

    Args:
        result: of `evaluate`.
        graph: what was evaluated, one structure.

    Raises:
        So3kError: names the atom, and the two atoms that are closest to each other.
    """
    of_atoms = {"energy": result.energies, "force": result.forces.sum(1), "charge": result.charges}
    wrong = [name for name, values in of_atoms.items() if not bool(torch.isfinite(values).all())]
    if not wrong and bool(torch.isfinite(result.virial).all()):
        return
    what = "the virial"
    if wrong:
        atom = int(torch.nonzero(~torch.isfinite(of_atoms[wrong[0]]))[0, 0])
        what = f"the {wrong[0]} of atom {atom}"
    lengths = torch.linalg.vector_norm(graph.vectors, dim=1)
    closest = ""
    if len(lengths):
        k = int(lengths.argmin())
        closest = (
            f", of all atoms {graph.idx_i[k]} and {graph.idx_j[k]} are closest, {lengths[k]:.3g} Å apart"
        )
    raise So3kError(
        f"{what} is not a finite number{closest}: correct positions or cell, take a shorter time step, or "
        "check the model"
    )


def differentiable_slopes(model: Any, graph: Graph) -> Slopes:
    """What `So3krates.gradient` gives, with the graph kept so that training can go through the forces.

    Raises:
        So3kError: the model has long-range physics, whose slopes in closed form cannot be differentiated.
    """
    if model.has_long_range:
        raise So3kError("models with electrostatics and dispersion are imported, not trained here")
    leaves = [tensor.detach().requires_grad_() for tensor in (graph.vectors, graph.positions, graph.cell)]
    vectors, positions, cell = leaves
    energies = model(graph._replace(vectors=vectors, positions=positions, cell=cell))
    by_vectors, by_positions, by_cell = torch.autograd.grad(
        [energies.sum()], leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    none, virial = energies[:0], torch.zeros_like(graph.cell)
    return Slopes(energies, by_vectors, by_positions, by_cell, virial, none, none, none[:, None])
