"""Neighbor lists that the device makes and renews by itself, and long-range pairs in their rows."""

import numpy as np
import pytest
import torch
from fake_cuda import load_fake_cuda
from pretend import waits

from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.device_lists import OVERFLOW, RENEWALS, DeviceLists
from so3k_md.kernels.long_range import KernelLongPairs
from so3k_md.physics.long_range import LongPairs
from so3k_md.structure.pairs import search, search_once

NEAR, FAR, SKIN = 3.0, 6.0, 0.5  # Å


@pytest.fixture(scope="module", autouse=True)
def gpu(device):
    load_fake_cuda()
    assert load_kernels()


def scattered(n, cell, seed=0, spread=1.0):
    """Atoms in a part of a cell, some of them in other images."""
    rng = np.random.default_rng(seed)
    fractions = rng.random((n, 3)) * spread
    return (fractions + rng.integers(-3, 4, (n, 3))) @ cell, cell, True


def far_apart():
    rng = np.random.default_rng(1)
    clusters = 5.0 * rng.random((2, 20, 3))
    return np.concatenate([clusters[0] - 3e3, clusters[1] + 7e3]), np.eye(3), False


def lattice(*rows):
    return np.array(rows, dtype=float)


CASES = {
    "triclinic": lambda: scattered(60, lattice([14, 0, 0], [3, 15, 0], [-4, 2, 16])),
    "own images": lambda: scattered(5, lattice([3.4, 0, 0], [1, 4, 0], [0.5, -1, 5])),
    "wide": lambda: scattered(40, lattice([60, 0, 0], [0, 18, 0], [0, 0, 22]), spread=0.4),
    "open": lambda: (10.0 * np.random.default_rng(2).random((50, 3)), np.eye(3), False),
    "far apart": far_apart,
    "one atom": lambda: (np.zeros((1, 3)), np.eye(3), False),
}


class Run:
    """Lists on the device, and the pairs that they have."""

    def __init__(self, device, positions, cell, periodic, far=FAR, near=NEAR):
        self.device, self.periodic = device, periodic
        self.near, self.far = near, far
        self.lists = torch.jit.script(DeviceLists(len(positions), near, far, SKIN, periodic)).to(device)
        self.pbc = torch.full((3,), periodic)

    def __call__(self, positions, cell, renew=True):
        """Vectors of near and of long-range pairs by centre and neighbor, in a fixed order."""
        r, box = torch.tensor(positions).to(self.device), torch.tensor(cell).to(self.device)
        pbc = self.pbc.to(self.device)
        with waits() as self.reads:
            found = self.lists(r, box, pbc, renew)
        vectors, i, j, places, length, rows = (tensor.cpu() for tensor in found)
        there = torch.linalg.vector_norm(vectors, dim=1) < 1.9 * (self.near + SKIN)  # others fill up the room
        centre, k = torch.nonzero(torch.arange(rows.size(1)) < length[:, None], as_tuple=True)
        entries = rows[centre, k]
        neighbor = entries & 0xFFFFFFFF
        image = (entries[:, None] >> torch.tensor([32, 40, 48]) & 0xFF).to(torch.uint8).view(torch.int8)
        far = places[neighbor] - places[centre] + image.double() @ places[-3:]
        assert torch.equal(places[-3:], box.cpu())
        assert bool((i[1:] >= i[:-1]).all())
        return ordered(i[there], j[there], vectors[there]), ordered(centre, neighbor, far)

    def expected(self, positions, cell, radius):
        r, box = torch.tensor(positions), torch.tensor(cell)
        i, j, shifts = search(r, box, self.pbc, radius)
        return ordered(i, j, r[j] - r[i] + shifts.double() @ box)

    def state(self, which):
        return int(self.lists.state[which])


def ordered(i, j, vectors):
    """Rows (centre, neighbor, vector) in a fixed order."""
    table = torch.cat([torch.stack([i, j], 1).double(), vectors], 1).numpy()
    return table[np.lexsort(np.round(table, 6).T[::-1])]


def within(table, radius):
    return table[np.linalg.norm(table[:, 2:], axis=1) < radius]


def check(run, positions, cell, renew=True):
    """All pairs within the cutoffs are there, and no other near pair."""
    near, far = run(positions, cell, renew)
    for found, radius in ((near, run.near), (within(far, run.far), run.far)):
        wanted = run.expected(positions, cell, radius)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_lists_are_those_of_a_search_on_the_cpu(name, device):
    positions, cell, periodic = CASES[name]()
    run = Run(device, positions, cell, periodic)
    for found, radius in zip(run(positions, cell), (NEAR, FAR + SKIN), strict=True):
        wanted = run.expected(positions, cell, radius)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert run.state(OVERFLOW) == 0


def test_lists_of_more_atoms_and_cells_than_a_block_has_threads(device):
    side, near, far = 52.0, 1.2, 2.2
    positions, cell, periodic = scattered(5000, side * np.eye(3))
    run = Run(device, positions, cell, periodic, far, near)
    check(run, positions, cell)
    assert run.state(OVERFLOW) == 0


def test_lists_do_not_depend_on_the_order_of_threads(device, monkeypatch):
    made = []
    for seed in ("0", "3", "7"):
        monkeypatch.setenv("SO3K_EMULATION_SEED", seed)
        positions, cell, periodic = CASES["triclinic"]()
        run = Run(device, positions, cell, periodic)
        run(positions, cell)
        made.append([getattr(run.lists, name).cpu() for name in ("rows", "length", "close")])
    for other in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(made[0], other, strict=True))


@pytest.mark.parametrize("name", ["triclinic", "open"])
def test_the_device_renews_them_and_the_host_reads_nothing(name, device):
    positions, cell, periodic = CASES[name]()
    run, rng = Run(device, positions, cell, periodic), np.random.default_rng(3)
    run(positions, cell)
    renewals = run.state(RENEWALS)
    for step, moved in ((0.02, False), (0.02, False), (0.2, True), (0.0, False), (0.4, True)):
        positions = positions + step * np.sign(rng.normal(size=positions.shape))
        check(run, positions, cell, renew=False)
        assert not run.reads
        renewals += moved
        assert run.state(RENEWALS) == renewals
        assert run.state(OVERFLOW) == 0


def test_images_that_change_need_no_renewal_and_strain_does(device):
    positions, cell, periodic = CASES["triclinic"]()
    run, rng = Run(device, positions, cell, periodic), np.random.default_rng(4)
    run(positions, cell)
    renewals = run.state(RENEWALS)
    other = positions + rng.integers(-2, 3, positions.shape) @ cell
    check(run, other, cell, renew=False)
    slightly = np.eye(3) + 1e-3 * rng.normal(size=(3, 3))
    check(run, positions @ slightly, cell @ slightly, renew=False)
    assert run.state(RENEWALS) == renewals
    much = np.eye(3) + 0.06 * rng.normal(size=(3, 3))
    check(run, positions @ much, cell @ much, renew=False)
    assert run.state(RENEWALS) == renewals + 1


def test_lists_that_outgrow_their_room_say_so(device):
    positions, cell, periodic = CASES["triclinic"]()
    run = Run(device, positions, cell, periodic)
    run(positions, cell)
    dense = positions * 0.6, cell * 0.6
    run(*dense, renew=False)
    assert not run.reads
    assert bool(run.lists.outgrown(*(torch.tensor(x).to(device) for x in dense)))
    check(run, *dense, renew=True)
    assert run.state(OVERFLOW) == 0


def test_boxes_too_thin_for_lists_are_refused(device):
    cell = np.diag([0.02, 20.0, 20.0])
    run = Run(device, np.zeros((1, 3)), cell, True)
    with pytest.raises((RuntimeError, torch.jit.Error), match="too thin"):
        run(np.zeros((1, 3)), cell)


def test_shapes_are_known_without_a_device():
    meta = DeviceLists(5, NEAR, FAR, SKIN, True).to("meta")
    meta.pairs = 7
    empty = torch.empty(5, 3, dtype=torch.float64, device="meta"), torch.empty(3, 3, device="meta")
    assert [tuple(tensor.shape) for tensor in meta.update(*empty)] == [(8, 3), (7, 3), (7,), (7,)]


@pytest.mark.parametrize("coulomb", ["kspace", "shifted"])
@pytest.mark.parametrize("name", ["triclinic", "own images", "open"])
def test_long_range_pairs_in_rows(name, coulomb, device):
    positions, cell, periodic = CASES[name]()
    n, generator = len(positions), torch.Generator().manual_seed(5)
    species = torch.tensor([1, 6, 8])[torch.randint(3, (n,), generator=generator)]
    q = 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    h = 1.0 + 0.2 * torch.rand(n, generator=generator, dtype=torch.float64)
    frame = torch.zeros(n, dtype=torch.int64)
    r, box = torch.tensor(positions), torch.tensor(cell)
    i, j, shifts = search_once(r, box, torch.full((3,), periodic), FAR)
    vectors = r[j] - r[i] + shifts.double() @ box
    plain = LongPairs()
    expected = plain(vectors, i, j, species, q, h, coulomb, FAR)
    wanted = [expected.energies, expected.charges, expected.ratios]
    wanted += plain.tally(vectors, expected.vectors, i, j, frame, 1)

    run = Run(device, positions, cell, periodic)
    run(positions, cell)
    rows = run.lists(r.to(device), box.to(device), run.pbc.to(device))[3:]
    kernels = KernelLongPairs().to(device)
    numbers, frame = (species.to(device), q.float().to(device), h.float().to(device)), frame.to(device)
    with waits() as reads:
        found = kernels(*rows, *numbers, coulomb, FAR)
        sums = kernels.tally(rows[0], found.vectors, *rows[1:], frame, 1)
    assert not reads
    for got, exact in zip([found.energies, found.charges, found.ratios, *sums], wanted, strict=True):
        error = float((got.cpu().double() - exact).norm() / (exact.norm() + 1e-300))
        print(name, coulomb, f"{error:.1e}")  # with -s
        assert error < 1e-5
