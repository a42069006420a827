"""Forces and virial are derivatives of the energy, through every door."""

import numpy as np
import torch
from small_models import cutoff_of, graph_of

from so3k_md.model.forces import evaluate

CELL = np.array([[4.5, 0.0, 0.0], [0.7, 4.7, 0.0], [-0.4, 0.3, 5.6]])
H = 2e-5  # Å; small, as the second derivative of the cosine cutoff jumps where a pair leaves


def derivative(energy_at) -> float:
    """Fourth-order central difference of a function at zero."""
    low2, low1, high1, high2 = (energy_at(k * H) for k in (-2, -1, 1, 2))
    return (low2 - 8 * low1 + 8 * high1 - high2) / (12 * H)


def test_forces_are_minus_the_gradient(model, cluster):
    numbers, positions = cluster
    forces = evaluate(model, graph_of(numbers, positions, cutoff_of(model), CELL), 1).forces
    for atom, axis in ((0, 0), (4, 1), (9, 2)):

        def energy(step: float, atom: int = atom, axis: int = axis) -> float:
            moved = positions.copy()
            moved[atom, axis] += step
            return float(evaluate(model, graph_of(numbers, moved, cutoff_of(model), CELL), 1).energy)

        assert abs(derivative(energy) + float(forces[atom, axis])) < 1e-6


def test_virial_is_minus_the_derivative_by_strain(model, cluster):
    numbers, positions = cluster
    virial = evaluate(model, graph_of(numbers, positions, cutoff_of(model), CELL), 1).virial[0]
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):

        def energy(step: float, a: int = a, b: int = b) -> float:
            strain = np.eye(3)
            strain[a, b] += step
            graph = graph_of(numbers, positions @ strain, cutoff_of(model), CELL @ strain)
            return float(evaluate(model, graph, 1).energy)

        assert abs(derivative(energy) + float(virial[a, b])) < 1e-6 * max(1.0, float(virial.abs().max()))


def test_virial_is_symmetric_and_forces_sum_to_zero(model, cluster):
    numbers, positions = cluster
    result = evaluate(model, graph_of(numbers, positions, cutoff_of(model), CELL), 1)
    assert torch.allclose(result.virial, result.virial.transpose(1, 2), rtol=0, atol=1e-9)
    assert result.forces.sum(0).abs().max() < 1e-10
    assert result.forces.abs().max() > 1e-3  # the structure is not at rest, so the checks above can fail
