"""Computes energies, forces and virial of a graph from the derivatives of its energy."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from so3k_md.errors import So3kError
from so3k_md.graph import Gradient, Graph, Outputs
from so3k_md.needs import needs_of
from so3k_md.nn.segment import outer_sum, pair_forces, segment_sum


class Evaluation(NamedTuple):
    """The outputs of a batch, with the energy, forces and virial that follow from them."""

    outputs: Outputs  # of the atoms
    energy: Tensor  # (frames,), eV
    forces: Tensor  # (atoms, 3), eV/Å
    virial: Tensor  # (frames, 3, 3), eV; stress in the sign of ASE is −virial / volume


def evaluate(model: Any, graph: Graph, n_frames: int, differentiable: bool = False) -> Evaluation:
    """Energies, forces F and virial W of every frame.

    F_i = Σ g_ij − Σ g_ji − ∂E/∂r_i and W = W_rest − Σ (r_j − r_i) ⊗ g_ij − Σ r_i ⊗ ∂E/∂r_i − cellᵀ ∂E/∂cell,
    The derivatives by r_i and cell come from non-local attention, electrostatics and dispersion. W_rest is
    the part of the virial that does not follow from the derivatives.

    Args:
        model: an eager, scripted or exported model.
        graph: one structure or a batch.
        n_frames: number of structures in it.
        differentiable: keep the autograd history of the forces, for training.
    """
    found = differentiable_gradient(model, graph) if differentiable else gradient_of(model, graph)
    n_atoms = graph.species.numel()
    forces = pair_forces(found.vectors, graph.idx_i, graph.idx_j, n_atoms) - found.positions
    virial = found.virial - graph.cell.transpose(1, 2) @ found.cell
    virial = virial - outer_sum(graph.vectors, found.vectors, graph.frame, graph.idx_i, n_frames)
    atoms = torch.arange(n_atoms, device=graph.frame.device)
    virial = virial - outer_sum(graph.positions, found.positions, graph.frame, atoms, n_frames)
    energy = segment_sum(found.outputs.energies, graph.frame, n_frames)
    return Evaluation(found.outputs, energy, forces, virial)


def check_finite(result: Evaluation, graph: Graph) -> None:
    """Refuse energies, forces, virials and charges that are not finite.

    Args:
        result: of `evaluate`.
        graph: the structure that was evaluated.

    Raises:
        So3kError: names the atom, and the two atoms that are closest to each other.
    """
    outputs = result.outputs
    if bool(torch.isfinite(result.virial.sum() + sum(part.sum() for part in (*outputs[::2], result.forces)))):
        return
    of_atoms = {"energy": outputs.energies, "force": result.forces.sum(1), "charge": outputs.charges}
    wrong = [name for name, values in of_atoms.items() if not bool(torch.isfinite(values).all())]
    what = "the virial"
    if wrong:
        atom = int(torch.nonzero(~torch.isfinite(of_atoms[wrong[0]]))[0, 0])
        what = f"the {wrong[0]} of atom {atom}"
    lengths = torch.linalg.vector_norm(graph.vectors, dim=1)
    closest = ""
    if len(lengths):
        k = int(lengths.argmin())
        closest = f"; the closest atoms, {graph.idx_i[k]} and {graph.idx_j[k]}, are {lengths[k]:.3g} Å apart"
    raise So3kError(
        f"{what} is not a finite number{closest}: correct positions or cell, take a shorter time step, or "
        "check the model"
    )


def gradient_of(model: Any, graph: Graph) -> Gradient:
    """The result of `So3krates.gradient`, of a model in any form."""
    if not hasattr(model, "gradient_tensors"):  # exported before it had this stage
        found = model.gradient(graph)
        return Gradient(Outputs(*found[0]), *found[1:])
    tensors = model.gradient_tensors(graph)
    n_outputs = len(Outputs._fields)
    return Gradient(Outputs(*tensors[:n_outputs]), *tensors[n_outputs:])


def differentiable_gradient(model: Any, graph: Graph) -> Gradient:
    """The result of `So3krates.gradient` with its autograd history, for training.

    Args:
        model: eager; without charges in any form.
        graph: one structure or a batch.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in (graph.vectors, graph.positions, graph.cell)]
    vectors, positions, cell = leaves
    moved = graph._replace(vectors=vectors, positions=positions, cell=cell)
    if needs_of(model).has_long_range:
        # training needs the history of the derivatives in closed form by charges, not by positions
        still = moved._replace(positions=graph.positions, cell=graph.cell)
        found = model.energies.differentiable(model.representation(moved), still)
    else:
        found = model.assess(moved)
    by_vectors, by_positions, by_cell = torch.autograd.grad(
        [found.outputs.energies.sum()], leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return Gradient(found.outputs, by_vectors, by_positions + found.positions, by_cell, found.virial)


def tensors_of(result: Evaluation) -> list[Tensor]:
    """All tensors of an evaluation."""
    return [*result.outputs, *result[1:]]


def on_cpu(result: Evaluation) -> Evaluation:
    """The same numbers on the CPU, without their autograd history."""
    tensors = [tensor.detach().cpu() for tensor in tensors_of(result)]
    n_outputs = len(Outputs._fields)
    return Evaluation(Outputs(*tensors[:n_outputs]), *tensors[n_outputs:])
