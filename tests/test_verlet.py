"""A Verlet list gives what a fresh search gives, to the bit, however atoms and cell have changed since."""

import numpy as np
import pytest
import torch
from vesin import NeighborList

from so3k_md.engines.openmm.particles import PairSearch
from so3k_md.structure.lists import VerletList, wrap
from so3k_md.structure.pairs import search

CUTOFF, SKIN = 3.0, 0.8
CELLS = {
    "cubic": np.diag([9.0, 9.0, 9.0]),
    "triclinic": np.array([[8.0, 0.0, 0.0], [2.0, 7.0, 0.0], [-3.0, 1.5, 8.0]]),
    "small": np.array([[2.5, 0.0, 0.0], [0.4, 2.8, 0.0], [0.3, -0.7, 2.2]]),
}
EVERY = torch.ones(3, dtype=torch.bool)


def verlet(kind, cutoff=CUTOFF, skin=SKIN):
    if kind == "eager":
        return VerletList(search, cutoff, skin)
    scripted = torch.jit.script(VerletList(PairSearch(cutoff + skin), cutoff, skin).eval())
    return torch.jit.freeze(scripted, preserved_attrs=["builds"]) if kind == "frozen" else scripted


def walk(cell, n_atoms, seed):
    """Steps of a rough simulation: motion, wrapping, strained and rejected boxes."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-2, 3, (n_atoms, 3)) @ cell
    for step in range(60):
        positions = positions + 0.05 * rng.normal(size=positions.shape)
        if step % 6 == 1:  # as engines do: some atoms are put into another image
            positions = positions + rng.integers(-2, 3, positions.shape) @ cell
        if step % 5 == 2:  # a trial move of the box, then back
            strain = np.eye(3) + 0.01 * rng.normal(size=(3, 3))
            yield positions @ strain, cell @ strain
        if step % 7 == 3:
            strain = np.eye(3) + 0.003 * rng.normal(size=(3, 3))
            positions, cell = positions @ strain, cell @ strain
        if step % 11 == 5:  # the box alone
            cell = cell @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3)))
        yield positions, cell


@pytest.mark.parametrize("kind", ["eager", "scripted", "frozen"])
@pytest.mark.parametrize("name", CELLS)
def test_kept_list_equals_fresh_search(kind, name):
    kept, steps = verlet(kind), 0
    for positions, cell in walk(CELLS[name], 30 if name != "small" else 3, seed=1):
        arguments = torch.tensor(positions), torch.tensor(cell), EVERY
        for ours, fresh in zip(kept(*arguments), verlet("eager", skin=0.0)(*arguments), strict=True):
            assert torch.equal(ours, fresh)
        steps += 1
    assert 2 < kept.builds < steps / 2


def test_compression_with_the_box_renews_the_list():
    positions = np.random.default_rng(4).uniform(0, 1, (40, 3)) @ CELLS["cubic"]
    kept = verlet("scripted")
    for scale in np.linspace(1.0, 0.6, 9):
        arguments = torch.tensor(positions * scale), torch.tensor(CELLS["cubic"] * scale), EVERY
        assert torch.equal(kept(*arguments)[0], verlet("eager", skin=0.0)(*arguments)[0])
    assert 2 < kept.builds < 9


def test_pairs_are_those_of_a_direct_sum():
    cell = CELLS["small"]
    positions = np.random.default_rng(0).uniform(-3, 3, (4, 3)) @ cell
    vectors, idx_i, idx_j = verlet("scripted")(torch.tensor(positions), torch.tensor(cell), EVERY)
    images = np.array(np.meshgrid(*[np.arange(-20, 21)] * 3)).reshape(3, -1).T @ cell
    expected = []
    for i in range(4):
        for j in range(4):
            r = np.linalg.norm(positions[j] + images - positions[i], axis=1)
            expected.append(((r <= CUTOFF) & (r > 1e-9)).sum())
    counts = torch.bincount(idx_i * 4 + idx_j, minlength=16)
    assert counts.tolist() == expected
    assert torch.linalg.vector_norm(vectors, dim=1).max() <= CUTOFF


@pytest.mark.parametrize("pbc", [(1, 0, 0), (1, 1, 0), (0, 0, 0)])
def test_open_axes(pbc):
    pbc = torch.tensor(pbc, dtype=torch.bool)
    cell = np.diag([4.0, 5.0, 1.0])
    kept, rng = verlet("eager"), np.random.default_rng(2)
    positions = rng.uniform(0, 8, (20, 3))
    for _ in range(20):
        positions += 0.1 * rng.normal(size=positions.shape)
        vectors = kept(torch.tensor(positions), torch.tensor(cell), pbc)[0]
        expected = NeighborList(cutoff=CUTOFF, full_list=True).compute(positions, cell, pbc.numpy(), "d")[0]
        ours = np.sort(np.linalg.norm(vectors.numpy(), axis=1))
        np.testing.assert_allclose(ours, np.sort(expected), atol=1e-12)


def test_drift_of_the_whole_system_and_changed_conditions_renew_the_list():
    kept = verlet("eager")
    positions, cell = torch.tensor(np.random.default_rng(3).uniform(0, 9, (20, 3))), torch.eye(3).double() * 9
    kept(positions, cell, EVERY)
    kept(positions[:19], cell, EVERY)
    kept(positions[:19], cell, torch.tensor([True, True, False]))
    kept(positions[:19] + 0.41, cell, torch.tensor([True, True, False]))
    assert kept.builds == 4
    kept(positions[:19] + 0.41, cell, torch.tensor([True, True, False]))
    assert kept.builds == 4


def test_molecules_far_apart_are_brought_together_for_the_search():
    positions = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [3e6, -2e6, 1e6], [3e6, -2e6, 1e6 + 1]]).double()
    points, images = wrap(positions, torch.eye(3).double(), torch.zeros(3, dtype=torch.bool), CUTOFF)
    assert points.abs().max() < 20
    assert not images.any()
    idx_i, idx_j = verlet("scripted")(positions, torch.eye(3).double(), torch.zeros(3, dtype=torch.bool))[1:]
    assert torch.stack([idx_i, idx_j]).tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]


def test_lone_atom_has_no_pairs():
    vectors, idx_i, _ = verlet("scripted")(torch.zeros(1, 3).double(), torch.eye(3).double() * 9, EVERY)
    assert vectors.shape == (0, 3)
    assert idx_i.shape == (0,)
