"""Pairs beyond the layers: the published numbers, and derivatives in closed form against those of a tape."""

import numpy as np
import plain
import pytest
import torch
from plain import CELL, atoms, half_pairs

from so3k_md.convert.rounding import round_constants
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.long_range import KernelLongPairs
from so3k_md.physics.coulomb import KE, SIGMA, open_sum, self_terms, shifted_potential
from so3k_md.physics.dispersion import damped_sum
from so3k_md.physics.long_range import LongPairs, LongRangeDerivatives
from so3k_md.physics.switching import switch_with_derivative

CUTOFF = 9.0
REFERENCE = np.load(plain.REFERENCE)
STRUCTURES = sorted({key.split("|")[0] for key in REFERENCE.files})


@pytest.fixture(params=[LongPairs, KernelLongPairs])
def long_pairs(request) -> type[LongPairs]:
    if request.param is KernelLongPairs and not load_kernels():
        pytest.skip("the kernels are not built")
    return request.param


def of_liquid(model, dtype=torch.float64, coulomb="shifted") -> LongRangeDerivatives:
    species, positions, q, h = atoms()
    vectors, i, j = half_pairs(positions, CELL, CUTOFF + 0.5)
    return model(vectors, i, j, species, q.to(dtype), h.to(dtype), coulomb, CUTOFF)


def by_distance(r2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """F of a = 9 and ∂F/∂(R²)."""
    value, derivative, _ = damped_sum(r2, torch.tensor(9.0, dtype=torch.float64))
    return value, derivative / r2


def by_polarizability(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """F at R = 5 bohr and ∂F/∂a."""
    value, _, derivative = damped_sum(torch.tensor(25.0, dtype=torch.float64), a)
    return value, derivative / a


def open_cluster() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    species, positions, q, h = atoms()
    return species, torch.tensor(positions), q, h


@pytest.mark.parametrize("name", STRUCTURES)
def test_equals_the_published_model(name, long_pairs):
    """Charges and volumes given, E_coul and E_disp of so3krates-torch; its table is rounded to float32."""
    z, r, cell, q, h = (REFERENCE[f"{name}|{key}"] for key in ("z", "r", "cell", "q", "h"))
    for cutoff in (12.0, 1000.0):
        key = f"{name}|{cutoff:.0f}"
        if key not in REFERENCE:
            continue
        arguments = [torch.tensor(z.astype(np.int64)), torch.tensor(q), torch.tensor(h)]
        for rounding, tolerance in (("peer", 1e-12), ("exact", 5e-10 * len(z))):
            pairs = half_pairs(r, cell, cutoff)
            part = long_pairs()
            if rounding == "peer":
                round_constants(part)
            found = part(*pairs, *arguments, "shifted", cutoff).energies.sum(0)
            assert np.abs(found.numpy() - REFERENCE[key][1:]).max() < tolerance * max(1, abs(found).max())


@pytest.mark.parametrize("coulomb", ["shifted", "shifted+self", "kspace"])
def test_derivatives_are_those_of_the_plain_formula(coulomb, long_pairs):
    species, positions, q, h = atoms()
    vectors, i, j = half_pairs(positions, CELL, CUTOFF + 0.5)
    for leaf in (vectors, q, h):
        leaf.requires_grad_()
    r = torch.linalg.vector_norm(vectors, dim=1)
    parts = [
        plain.coulomb(r, q[i], q[j], CUTOFF) * (coulomb != "kspace"),
        plain.dispersion(r, species[i], species[j], h[i], h[j], CUTOFF),
    ]
    wanted = torch.autograd.grad(parts[0].sum() + parts[1].sum(), [vectors, q, h])
    found = of_liquid(long_pairs(), coulomb=coulomb)
    per_atom = torch.zeros(len(species), 2, dtype=torch.float64)
    for k, part in enumerate(parts):
        per_atom[:, k].index_add_(0, i, 0.5 * part.detach()).index_add_(0, j, 0.5 * part.detach())
    assert torch.allclose(found.energies, per_atom, rtol=0, atol=1e-12)
    for derivative, tape in zip(found[1:], wanted, strict=True):
        assert (derivative - tape).abs().max() < 1e-12
    assert wanted[0].abs().max() > 1e-3
    assert wanted[2].abs().max() > 1e-2


@pytest.mark.parametrize("coulomb", ["shifted", "kspace"])
def test_scripted_and_tiled_as_a_whole(coulomb, long_pairs):
    scripted = torch.jit.script(long_pairs())
    scripted.tile = 100
    whole, tiled = of_liquid(long_pairs(), coulomb=coulomb), of_liquid(scripted, coulomb=coulomb)
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(whole, tiled, strict=True))


def test_float32_is_near(long_pairs):
    exact, single = of_liquid(long_pairs()), of_liquid(long_pairs(), torch.float32)
    assert single.energies.dtype == torch.float64
    assert single.vectors.dtype == torch.float32
    for a, b, tolerance in zip(exact, single, (1e-5, 1e-6, 1e-5, 1e-6), strict=True):
        assert (a - b).abs().max() < tolerance


def test_no_pairs(long_pairs):
    none = torch.zeros(0, dtype=torch.int64)
    q = torch.tensor([0.1, -0.1])
    found = long_pairs()(torch.zeros(0, 3), none, none, torch.tensor([1, 8]), q, q, "shifted", CUTOFF)
    assert found.vectors.shape == (0, 3)
    assert not any(part.any() for part in found)


@pytest.mark.parametrize(
    "function",
    [
        lambda r: switch_with_derivative(r, CUTOFF - 2, CUTOFF),
        lambda r: shifted_potential(r, CUTOFF),
        by_distance,
        by_polarizability,
    ],
    ids=["switch", "shifted", "dispersion", "dispersion by polarizability"],
)
def test_derivatives_are_finite_differences(function):
    x, step = torch.linspace(0.4, CUTOFF - 1e-3, 2000, dtype=torch.float64), 1e-5
    _, derivative = function(x)
    difference = (function(x + step)[0] - function(x - step)[0]) / (2 * step)
    assert (derivative - difference).abs().max() < 1e-7 * derivative.abs().max()


def test_energies_end_smoothly_at_the_cutoff(long_pairs):
    """Value and derivative vanish there, for a pair that crosses it and for the tabled switch."""
    model, species = long_pairs(), torch.tensor([16, 17])
    one, q, h = torch.tensor([0]), torch.tensor([0.5, -0.4]).double(), torch.tensor([0.9, 1.0]).double()
    for distance, tolerance in ((CUTOFF - 1e-4, 1e-8), (CUTOFF, 1e-15), (CUTOFF + 0.3, 1e-15)):
        vector = torch.tensor([[0.0, distance, 0.0]], dtype=torch.float64)
        found = model(vector, one, one + 1, species, q, h, "shifted", CUTOFF)
        assert found.energies.abs().max() < tolerance
        assert found.vectors.abs().max() < max(1e-15, 1e4 * tolerance)


def test_untruncated_is_shifted_with_its_self_term_within_045_of_the_cutoff(long_pairs):
    species, r, q, h = open_cluster()
    energies, by_q, by_r = open_sum(q, r, 0, len(q), tile=30)
    pairs = half_pairs(r.numpy(), np.zeros((3, 3)), 40.0)
    shifted = long_pairs()(*pairs, species, q, h, "shifted+self", 40.0)
    own, own_by_q = self_terms(q, 40.0)
    assert abs(float(energies.sum() - shifted.energies[:, 0].sum() - own.sum())) < 1e-12
    assert (by_q - shifted.charges - own_by_q).abs().max() < 1e-12
    q.requires_grad_()
    r.requires_grad_()
    d = torch.linalg.vector_norm(r[pairs[1]] - r[pairs[2]], dim=1)
    tape = torch.autograd.grad((plain.KE * q[pairs[1]] * q[pairs[2]] * torch.erf(d / 4) / d).sum(), [q, r])
    assert (by_q - tape[0]).abs().max() < 1e-12
    assert (by_r - tape[1]).abs().max() < 1e-12


@pytest.mark.parametrize("kernel", [False, True], ids=["plain", "kernel"])
def test_open_sum_of_some_atoms_is_their_part_of_the_whole(kernel):
    if kernel and not load_kernels():
        pytest.skip("the kernels are not built")

    def some(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (
            torch.ops.so3k.open_coulomb(q, r, first, last, KE, SIGMA)
            if kernel
            else open_sum(q, r, first, last)
        )

    _, r, q, _ = open_cluster()
    n = len(q)
    whole = open_sum(q, r, 0, n, tile=30)
    parts = [some(first, last) for first, last in ((0, 2), (2, 2), (2, n))]
    for found, wanted in zip(zip(*parts, strict=True), whole, strict=True):
        assert (torch.cat(found) - wanted).abs().max() < 1e-13


def test_self_terms_are_what_a_half_sum_at_the_cutoff_gives():
    q = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    energies, by_q = self_terms(q, 12.0)
    wanted = -0.5 * plain.KE * torch.erf(torch.tensor(3.0).double()) / 12.0 * q**2
    assert (energies - wanted).abs().max() < 1e-14
    assert (by_q - torch.autograd.grad(wanted.sum(), q)[0]).abs().max() < 1e-14


def test_open_sum_of_fragments_far_apart():
    """Two fragments 10 km apart, in float32: as exact as each alone."""
    _, r, q, _ = open_cluster()
    script = torch.jit.script(open_sum)
    away = torch.cat([r, r + torch.tensor([1e6, 0.0, 0.0])])
    energies, by_q, by_r = script(torch.cat([q, q]).float(), away, 0, 2 * len(q))
    alone = open_sum(q, r, 0, len(q))
    assert (energies - alone[0].repeat(2)).abs().max() < 1e-5
    assert (by_q - alone[1].repeat(2)).abs().max() < 1e-5
    assert (by_r - alone[2].repeat(2, 1)).abs().max() < 1e-6


def test_atoms_at_the_same_place_give_numbers(long_pairs):
    q, r = torch.tensor([0.2, 0.3]), torch.zeros(2, 3)
    one, species = torch.tensor([0]), torch.tensor([1, 1])
    found = long_pairs()(torch.zeros(1, 3), one, one + 1, species, q, q, "shifted", CUTOFF)
    for part in (*found, *open_sum(q, r, 0, 2)):
        assert torch.isfinite(part).all()
