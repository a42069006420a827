"""The sum over waves against a direct sum over images, and its laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from plain import CELL, KE, REFERENCE, atoms
from scipy.special import erf

from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.long_range import KernelLatticeSum
from so3k_md.physics.coulomb import open_sum
from so3k_md.physics.kspace import LatticeDerivatives, LatticeSum

LATTICES = {
    "triclinic": CELL,
    "cubic": 6.4 * np.eye(3),
    "flat": np.array([[7.5, 0.0, 0.0], [3.0, 7.0, 0.0], [0.0, 2.0, 3.1]]),
    "left-handed": CELL[[1, 0, 2]],
}


@pytest.fixture(params=["eager", "scripted", "kernel"])
def model(request):
    if request.param == "kernel":
        if not load_kernels():
            pytest.skip("the kernels are not built")
        return KernelLatticeSum()
    return LatticeSum() if request.param == "eager" else torch.jit.script(LatticeSum())


def liquid(cell=CELL) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    _, positions, q, _ = atoms()
    return q, torch.tensor(positions @ np.linalg.inv(CELL) @ cell), torch.tensor(cell)


def direct_sum(q, r, cell, width=12.0) -> float:
    """Σ over images of q_i q_j [erf(d/4) − erf(d/12)] / d, which converges by itself.

    What is left out are charges smeared over 12 Å: their waves, of 1e-12 in these cells, and what they are to
    themselves. For a charged cell the missing k = 0 wave is that of both.
    """
    q, r, cell = (tensor.numpy() for tensor in (q, r, cell))
    count = np.ceil(6 * width * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in count)))) @ cell
    images = images[np.linalg.norm(images, axis=1) < 6 * width]
    total = -np.sum(q * q) / (math.sqrt(math.pi) * width)
    total -= 2 * math.pi / abs(np.linalg.det(cell)) * (width**2 - 16) / 4 * q.sum() ** 2
    for i, j in itertools.product(range(len(q)), repeat=2):
        d = np.linalg.norm(images + r[j] - r[i], axis=1)
        d = d[d > 1e-9]
        total += 0.5 * q[i] * q[j] * np.sum((erf(d / 4) - erf(d / width)) / d)
    return KE * total


def energy(model, q, r, cell) -> float:
    return model(q, r, cell).energies.sum().item()


@pytest.mark.parametrize("lattice", LATTICES)
def test_equals_the_sum_over_images(model, lattice):
    q, r, cell = liquid(LATTICES[lattice])
    q, r = q[:5] - q[:5].mean(), r[:5]
    assert abs(energy(model, q, r, cell) - direct_sum(q, r, cell)) < 1e-9


def test_charged_cell(model):
    q, r, cell = liquid()
    q, r = q[:5] + 0.2, r[:5]
    assert abs(energy(model, q, r, cell) - direct_sum(q, r, cell)) < 1e-9


def test_derivatives_are_finite_differences(model):
    q, r, cell = liquid()
    q = q + 0.05
    found, step = model(q, r, cell), 1e-4

    def derivative(change) -> float:
        return (energy(model, *change(step)) - energy(model, *change(-step))) / (2 * step)

    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        move = torch.zeros_like(r)
        move[atom, axis] = 1.0
        assert (
            abs(found.positions[atom, axis].item() - derivative(lambda h, u=move: (q, r + h * u, cell)))
            < 1e-8
        )
        push = move.sum(1)
        assert abs(found.charges[atom].item() - derivative(lambda h, u=push: (q + h * u, r, cell))) < 1e-8
        assert found.positions[atom].abs().max() > 1e-3
    for a, b in itertools.product(range(3), repeat=2):
        shear = torch.zeros(3, 3, dtype=torch.float64)
        shear[a, b] = 1.0

        def strained(h, shear=shear):
            strain = torch.eye(3, dtype=torch.float64) + h * shear
            return q, r @ strain.t(), cell @ strain.t()

        assert abs(found.virial[a, b].item() + derivative(strained)) < 1e-8
    assert abs(found.energies.sum() - 0.5 * (q * found.charges).sum()) < 1e-12


def test_neither_images_nor_the_choice_of_the_cell_matter(model):
    q, r, cell = liquid()
    found = model(q, r, cell)
    jumps = torch.tensor(np.random.default_rng(0).integers(-40, 40, (len(q), 3))).double()
    skewed = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 2.0, 1.0]], dtype=torch.float64) @ cell
    for other in (model(q, r + jumps @ cell, cell), model(q, r + 3.21, cell), model(q, r, skewed)):
        for a, b in zip(found, other, strict=True):
            assert (a - b).abs().max() < 1e-10
    doubled = model(
        q.repeat(2), torch.cat([r, r + cell[0]]), cell * torch.tensor([[2.0], [1.0], [1.0]]).double()
    )
    assert (doubled.energies - found.energies.repeat(2)).abs().max() < 1e-10
    assert (doubled.virial - 2 * found.virial).abs().max() < 1e-10


@pytest.mark.parametrize("lattice", LATTICES)
def test_virials_of_atoms_are_halves_of_their_pairs_with_all_images(model, lattice):
    """−½ Σ r ⊗ ∂V/∂r of the direct sum, which in a neutral cell lacks nothing."""
    q, r, cell = liquid(LATTICES[lattice])
    q, r = q[:4] - q[:4].mean(), r[:4]
    sums = model.sums(q, r, cell)
    found = model.virials(q, r, cell, sums)
    assert (found.sum(0) - model.read(q, r, cell, sums).virial).abs().max() < 1e-10
    width, wanted = 12.0, np.zeros((4, 3, 3))
    x, lengths = r.numpy(), 6 * width * np.linalg.norm(np.linalg.inv(cell.numpy()), axis=0)
    counts = [range(-n, n + 1) for n in np.ceil(lengths).astype(int)]
    images = np.array(list(itertools.product(*counts))) @ cell.numpy()
    for i, j in itertools.product(range(4), repeat=2):
        vectors = images + x[j] - x[i]
        d = np.linalg.norm(vectors, axis=1)
        vectors, d = vectors[(d > 1e-9) & (d < 6 * width)], d[(d > 1e-9) & (d < 6 * width)]
        derivative = smeared_derivative(d, 4.0) - smeared_derivative(d, width)
        wanted[i] -= (
            0.5 * KE * float(q[i] * q[j]) * np.einsum("na,nb,n->ab", vectors, vectors, derivative / d)
        )
    assert np.abs(found.numpy() - wanted).max() < 1e-9


def smeared_derivative(d, width):
    """∂/∂d of erf(d/width) / d."""
    return (2 / math.sqrt(math.pi) / width * np.exp(-((d / width) ** 2)) - erf(d / width) / d) / d


def test_molecule_in_a_large_cell_is_the_open_one_and_the_image_of_its_dipole(model):
    """−2π μ² / (3 V) in a cubic cell; what is left, of higher moments, falls as the length to the −5."""
    reference = np.load(REFERENCE)
    q, r = torch.tensor(reference["H2O|q"]), torch.tensor(reference["H2O|r"])
    alone, dipole, left = open_sum(q, r, 0, len(q)), (q[:, None] * r).sum(0), []
    for length in (20.0, 40.0):
        image = -2 * math.pi * KE / (3 * length**3) * dipole
        found = model(q, r, length * torch.eye(3).double())
        left.append((found.energies - alone[0]).sum() - image @ dipole)
        assert abs(left[-1]) < 8 * length**-2 * abs(image @ dipole)
        assert (
            found.positions - alone[2] - 2 * q[:, None] * image
        ).abs().max() < 8 * length**-2 * image.abs().max()
    assert float(left[0] / left[1]) == pytest.approx(32, rel=0.05)


def test_parts_of_a_cell_add_up(model):
    """As on several ranks, one of them without atoms."""
    q, r, cell = liquid()
    whole = model(q, r, cell)
    parts = [slice(0, 5), slice(5, 5), slice(5, None)]
    sums = sum(model.sums(q[part], r[part], cell) for part in parts)
    found = [model.read(q[part], r[part], cell, sums) for part in parts]
    for field in ("energies", "charges", "positions"):
        joined = torch.cat([getattr(rank, field) for rank in found])
        assert (joined - getattr(whole, field)).abs().max() < 1e-12
    assert all((rank.virial - whole.virial).abs().max() < 1e-12 for rank in found)


def test_tiles_and_float32(model):
    q, r, cell = liquid()
    whole = model(q, r, cell)
    model.tile = 1000
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(whole, model(q, r, cell), strict=True))
    single: LatticeDerivatives = model(q.float(), r, cell)
    assert single.positions.dtype == torch.float32
    assert single.energies.dtype == torch.float64
    for a, b, tolerance in zip(whole, single, (2e-6, 1e-5, 1e-6, 1e-5), strict=True):
        assert (a - b).abs().max() < tolerance


@pytest.mark.parametrize("lattice", LATTICES)
def test_the_kernel_sums_the_same_waves_in_the_same_order(lattice):
    if not load_kernels():
        pytest.skip("the kernels are not built")
    q, r, cell = liquid(LATTICES[lattice])
    sums = LatticeSum().sums(q, r, cell)
    assert (KernelLatticeSum().sums(q, r, cell) - sums).abs().max() < 1e-12
    for a, b in zip(
        KernelLatticeSum().read(q, r, cell, sums), LatticeSum().read(q, r, cell, sums), strict=True
    ):
        assert (a - b).abs().max() < 1e-12


def test_cells_in_turn_give_the_same_bits():
    """Waves are kept for the last cells, and made again for others."""
    if not load_kernels():
        pytest.skip("the kernels are not built")
    kernel = KernelLatticeSum()
    q, r, cell = liquid()
    cells = [cell * (1 + 0.01 * k) for k in range(6)]
    first = [kernel(q, r, each) for each in cells]
    for _ in range(2):
        for each, wanted in zip(cells, first, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(kernel(q, r, each), wanted, strict=True))
    assert not torch.equal(first[0].energies, first[1].energies)
    with pytest.raises(RuntimeError, match="those of another cell"):
        kernel.read(q, r, cells[0], kernel.sums(q, r, 2 * cell))


def test_k_max_is_long_enough():
    q, r, cell = liquid()
    default, longer = LatticeSum()(q, r, cell), LatticeSum(3.2)(q, r, cell)
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(default, longer, strict=True))
    assert (LatticeSum(1.0)(q, r, cell).positions - default.positions).abs().max() > 1e-4
