"""Deviations of a committee against a closed form and formulas written out with loops."""

import math

import pytest
import torch

from so3k_md.committee import energy_deviation, forces_deviation, relative_forces_deviation, spread
from so3k_md.errors import So3kError


@pytest.fixture
def forces() -> torch.Tensor:
    return torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_two_members_deviate_by_half_their_difference():
    forces = torch.tensor([[[1.0, 2, 2], [0, 0, 0]], [[-1, -2, -2], [0, 6, 8]]])
    deviations = forces_deviation(forces)
    assert deviations.tolist() == [3, 5]
    assert [value.item() for value in spread(deviations)] == [5, 3, 4]
    # the mean forces are 0 and 5
    assert relative_forces_deviation(forces, 0.5).tolist() == pytest.approx([3 / 0.5, 5 / 5.5], rel=1e-15)


def test_forces_as_written_out(forces):
    for atom, (absolute, relative) in enumerate(
        zip(forces_deviation(forces), relative_forces_deviation(forces, 0.2), strict=True)
    ):
        rows = forces[:, atom].tolist()
        mean = [sum(row[k] for row in rows) / 4 for k in range(3)]
        expected = math.sqrt(sum(sum((row[k] - mean[k]) ** 2 for k in range(3)) for row in rows) / 4)
        assert absolute.item() == pytest.approx(expected, rel=1e-14)
        assert relative.item() == pytest.approx(expected / (math.hypot(*mean) + 0.2), rel=1e-14)


def test_energy_is_per_atom():
    assert energy_deviation(torch.tensor([1.0, 5.0]), 4).item() == 0.5
    many = energy_deviation(torch.tensor([[1.0, 0.0], [5.0, 6.0]]), torch.tensor([4, 3]))
    assert many.tolist() == [0.5, 1.0]


def test_equal_members_do_not_deviate(forces):
    same = forces[:1].expand(4, -1, -1)
    assert forces_deviation(same).abs().max() <= 1e-15
    assert energy_deviation(torch.full((4,), -1234.5), 7) == 0


def test_deviations_are_invariant(forces):
    """Under rotation, order of members, and a force that all members share."""
    rotation = torch.linalg.qr(forces[0, :3]).Q
    for changed in (forces @ rotation, forces.flip(0), forces + forces[0]):
        torch.testing.assert_close(forces_deviation(changed), forces_deviation(forces), rtol=1e-13, atol=0)


def test_large_energies_in_float32_lose_nothing():
    energies = torch.tensor([-1e6, -1e6 + 0.125], dtype=torch.float32)
    assert energy_deviation(energies, 1).item() == 0.0625


def test_what_has_no_deviation(forces):
    with pytest.raises(So3kError, match="at least two models, this one has 1"):
        forces_deviation(forces[:1])
    with pytest.raises(So3kError, match="at least two models"):
        energy_deviation(torch.zeros(0), 1)
    with pytest.raises(So3kError, match="without atoms"):
        spread(forces_deviation(forces[:, :0]))
    for floor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(So3kError, match="positive number"):
            relative_forces_deviation(forces, floor)
