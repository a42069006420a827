"""Repulsion of near nuclei."""

from dataclasses import replace

import numpy as np
import plain
import pytest
import torch

from so3k_md import ModelConfig, So3krates
from so3k_md.nn.radial import polynomial_cutoff
from so3k_md.physics.zbl import ZBL
from so3k_md.structure.pairs import neighbor_pairs

REFERENCE = np.load(plain.REFERENCE)
# of the published weights, after softplus
A = [1.0868245230384135, 0.9528452385283805, 0.45579214245012023, 0.23729690361139658]
C = [0.19126666447403606, 0.5420864584383056, 0.24340954490057856, 0.023237332187079816]
P, D = 0.2556530571440917, 2.2456753850218525


@pytest.fixture
def trained() -> ZBL:
    model = ZBL()
    for name, value in (("a", A), ("c", C), ("p", P), ("d", D)):
        setattr(model, name, torch.tensor(value, dtype=torch.float64))
    return model


def pair(model, distance, species=(8, 1), dtype=torch.float64):
    vectors = torch.tensor([[0.0, 0.0, distance]], dtype=torch.float64, requires_grad=True)
    r = torch.linalg.vector_norm(vectors, dim=1).to(dtype)
    z_i, z_j = torch.tensor(species, dtype=torch.float64)[:, None]
    energy = model(r, z_i, z_j, polynomial_cutoff(r, 4.5, 3))
    return energy.detach().item(), torch.autograd.grad(energy.sum(), vectors)[0][0, 2].item()


@pytest.mark.parametrize("name", sorted({key.split("|")[0] for key in REFERENCE.files}))
def test_equals_the_published_model(trained, name):
    z, r, cell = (REFERENCE[f"{name}|{key}"] for key in ("z", "r", "cell"))
    i, j, shifts = neighbor_pairs(r, cell, bool(cell.any()), 4.5)
    vectors = torch.tensor(r[j] + shifts @ cell - r[i])
    distances = torch.linalg.vector_norm(vectors, dim=1)
    cut = polynomial_cutoff(distances, 4.5, 3)
    z_i, z_j = torch.tensor(z[i], dtype=torch.float64), torch.tensor(z[j], dtype=torch.float64)
    for model in (trained, torch.jit.script(trained)):
        found = model(distances, z_i, z_j, cut).sum().item()
        assert abs(found - REFERENCE[f"{name}|12"][0]) < 1e-12


def test_derivative_is_a_finite_difference_and_ends_at_1_5(trained):
    for distance in (0.3, 0.7, 1.0, 1.3, 1.45):
        step = 1e-5
        difference = (pair(trained, distance + step)[0] - pair(trained, distance - step)[0]) / (2 * step)
        assert abs(pair(trained, distance)[1] - difference) < 1e-7 * max(1.0, abs(difference))
    assert pair(trained, 1.0)[0] > 0.1
    for distance in (1.499, 1.5, 1.501, 4.0):
        assert np.abs(pair(trained, distance)).max() < 1e-15


def test_both_directions_are_equal(trained):
    assert pair(trained, 1.1, (6, 17)) == pytest.approx(pair(trained, 1.1, (17, 6)), rel=1e-14)


def test_untrained_is_the_universal_function():
    """0.5 k_e Z² / r · Σ c exp(−a r 2 Z^0.23 / 0.4685 Å) of two oxygens at 0.5 Å, envelopes taken off."""
    r = torch.tensor([0.5], dtype=torch.float64)
    off = float(polynomial_cutoff(r, 4.5, 3) * plain.switch(r, 0.0, 1.5))
    x = 0.5 * 2 * 8**0.23 / (0.8854 * plain.BOHR)
    phi = sum(
        c / 1.00007 * np.exp(-a * x)
        for c, a in zip((0.1818, 0.5099, 0.2802, 0.02817), (3.2, 0.9423, 0.4028, 0.2016), strict=True)
    )
    assert pair(ZBL(), 0.5, (8, 8))[0] == pytest.approx(0.5 * plain.KE * 64 / 0.5 * phi * off, rel=1e-12)


def test_float32_is_near(trained):
    energy, derivative = pair(trained, 0.97, dtype=torch.float32)
    exact = pair(trained, 0.97)
    assert energy == pytest.approx(exact[0], rel=1e-5)
    assert derivative == pytest.approx(exact[1], rel=1e-4)


def test_nothing_breaks_where_two_atoms_share_a_place():
    model = So3krates(replace(ModelConfig.preset("so3lr"), layers=1), [1, 8])
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    i = torch.tensor([0, 1])
    like = model.representation.embedding.weight
    energies = model.energies.close_repulsion(vectors, i, i.flip(0), torch.tensor([1, 8]), like, 2)
    (derivatives,) = torch.autograd.grad(energies.sum(), vectors)
    assert torch.isfinite(energies).all()
    assert torch.isfinite(derivatives).all()
