"""Models with charges in training: the numbers of evaluation, and derivatives of all that enters a loss."""

import numpy as np
import pytest
import torch
from so3lr_toys import ammonium, ions, so3lr_toy, water_dimer, waters
from torch import Tensor

from so3k_md.data import Frame
from so3k_md.data.batches import to_graph
from so3k_md.data.structures import given_charge_state
from so3k_md.graph import Graph, collate
from so3k_md.model import So3krates, still_copy
from so3k_md.model.forces import Evaluation, evaluate, tensors_of

BATCHES = {
    "open": ([water_dimer, ions, ammonium], "kspace"),
    "periodic": ([lambda: waters(1, True), waters], "kspace"),
    "shifted": ([water_dimer, lambda: waters(1, True)], "shifted"),
    "self": ([ions, waters], "shifted+self"),
}


@pytest.fixture(params=BATCHES)
def graph(request) -> tuple[Graph, int]:
    """Structures of unlike size in one batch."""
    makers, coulomb = BATCHES[request.param]
    graphs = []
    for make in makers:
        atoms = make()
        cell = np.asarray(atoms.cell) if atoms.pbc.any() else None
        labels = None, None, None, 0, "toy", None, given_charge_state(atoms)
        frame = Frame(atoms.numbers, atoms.positions, cell, atoms.pbc, *labels)
        graphs.append(to_graph(frame, so3lr_toy().needs.cutoff, so3lr_toy(), coulomb=coulomb, cutoff_lr=5.5))
    return collate(graphs), len(graphs)


def trainable() -> So3krates:
    return still_copy(so3lr_toy()).requires_grad_(True)


def some_loss(found: Evaluation, graph: Graph) -> Tensor:
    """A quadratic function of every output, each with a weight at which its derivative is seen."""
    generator = torch.Generator().manual_seed(1)

    def squares(values: Tensor) -> Tensor:
        target = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        return ((values - target) ** 2).sum()

    outputs = found.outputs
    dipole = torch.zeros(3, 3, dtype=torch.float64).index_add(
        0, graph.frame, outputs.charges[:, None] * graph.positions
    )
    parts = found.energy, found.forces, found.virial, outputs.charges, outputs.ratios, dipole
    return torch.stack([squares(part) for part in parts]).sum()


def test_training_computes_the_same_numbers(graph):
    batch, n_frames = graph
    usual = evaluate(so3lr_toy(), batch, n_frames)
    trained = evaluate(trainable(), batch, n_frames, differentiable=True)
    for name, a, b in zip("EPQHefw", tensors_of(usual), tensors_of(trained), strict=True):
        torch.testing.assert_close(
            b.detach(), a, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_derivatives_by_the_weights_are_those_of_differences(graph):
    batch, n_frames = graph
    model = trainable()
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) * 1e-2 for p in parameters]

    def loss() -> Tensor:
        return some_loss(evaluate(model, batch, n_frames, differentiable=True), batch)

    gradient = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    expected = sum(float((g.detach() * d).sum()) for g, d in zip(gradient, direction, strict=True))
    step, moved = 1e-4, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * step)
        moved.append(float(loss().detach()))
    assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(expected, rel=1e-6)


def test_every_part_of_the_physics_gets_a_derivative(graph):
    """Of the charge head through forces alone, of the volumes through dispersion alone."""
    batch, n_frames = graph
    model = trainable()
    forces = evaluate(model, batch, n_frames, differentiable=True).forces
    (forces**2).sum().backward()
    physics = model.energies.physics
    for head in (physics.charge_head.mlp.out.weight, physics.ratio_head.mlp.out.weight):
        assert float(head.grad.abs().max()) > 1e-6
