"""OpenMM's module with the kernels for GPUs: lists that the device renews, and one read a step."""

import copy
import io

import numpy as np
import pytest
import torch
from fake_cuda import load_fake_cuda
from pretend import waits
from so3lr_toys import so3lr_toy, water_dimer, waters
from toys import mixture, nonlocal_toy, structure, toy_model

from so3k_md.checkpoint import KERNEL_FILES
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.choose import accelerated
from so3k_md.kernels.device_lists import OVERFLOW, RENEWALS
from so3k_md.kernels.parts import COMPILED
from so3k_md.model import set_dtype

TOLERANCE = 3e-5  # of forces, relative to the largest; products in split bfloat16
CASES = {
    "local, box": lambda: (toy_model(), structure("triclinic"), {"bonded": [0, 1, 2, 3]}),
    "charges, open": lambda: (so3lr_toy(), water_dimer(), {}),
    "charges, box": lambda: (so3lr_toy(), waters(), {"cutoff_lr": 6.0}),
    "charges, box, shifted": lambda: (so3lr_toy(), waters(), {"cutoff_lr": 6.0, "coulomb": "shifted+self"}),
    "sphc, open": lambda: (nonlocal_toy("sphc"), mixture("open")[0], {"group": mixture("open")[1]}),
}


@pytest.fixture(scope="module", autouse=True)
def gpu(device, tmp_path_factory):
    """The pretended device with a driver and a compiler, and a cache of its own."""
    load_fake_cuda()
    assert load_kernels()
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setitem(COMPILED, device.type, COMPILED["cuda"])
    patch.setitem(KERNEL_FILES, device.type, KERNEL_FILES["cuda"])
    yield
    patch.undo()


class Pair:
    """The module of plain layers on the CPU in float64, and that of the kernels on the device."""

    def __init__(self, name, device):
        model, self.atoms, options = CASES[name]()
        self.periodic = bool(self.atoms.pbc.any())
        single = set_dtype(copy.deepcopy(model), torch.float32)
        fast = accelerated(single, "on", device=device)
        assert fast.form == "kernels-cuda"
        numbers = self.atoms.numbers.tolist()
        self.ours = script_for_openmm(model, numbers, periodic=self.periodic, **options)
        there = script_for_openmm(fast, numbers, periodic=self.periodic, **options)
        self.there = torch.jit.load(io.BytesIO(there.save_to_buffer()), map_location=device)
        self.device = device

    def __call__(self, positions, cell=None):
        """Checks that both agree, and returns how often the host read the device.

        The lines of shared models are unknown, because these are frozen.
        """
        cell = self.atoms.cell.array if cell is None else cell
        arrays = (positions / 10, cell / 10) if self.periodic else (positions / 10,)
        arguments = [torch.tensor(x) for x in arrays]
        moved = [x.to(self.device) for x in arguments]
        with waits(places=False) as found:
            energy, forces = self.there(*moved)
        expected = self.ours(*arguments)
        torch.testing.assert_close(energy.cpu(), expected[0], rtol=1e-5, atol=0)
        scale = float(expected[1].abs().max())
        torch.testing.assert_close(forces.cpu(), expected[1], rtol=0, atol=TOLERANCE * scale)
        return sum(found.values())

    def state(self, which):
        return int(self.there.seen.lists.state[which])


@pytest.mark.parametrize("name", CASES)
def test_a_step_reads_once_also_if_it_renews_the_lists(name, device):
    pair, rng = Pair(name, device), np.random.default_rng(2)
    positions = pair.atoms.positions
    pair(positions)
    for amplitude, renewed in ((0.01, 0), (0.2, 1), (0.01, 0)):
        positions = positions + amplitude * np.sign(rng.normal(size=positions.shape))
        before = pair.state(RENEWALS)
        # six are those of the lattice sum
        assert pair(positions) == (7 if name == "charges, box" else 1)
        assert pair.state(RENEWALS) == before + renewed
        assert pair.state(OVERFLOW) == 0


def test_lists_that_outgrow_their_room_are_made_again_in_the_step(device):
    pair = Pair("charges, box, shifted", device)
    positions, cell = pair.atoms.positions, pair.atoms.cell.array
    wide = np.linalg.inv(cell) @ (1.5 * cell)
    pair(positions @ wide, 1.5 * cell)
    width = pair.there.seen.lists.rows.size(1)
    pair(positions, cell)
    assert pair.there.seen.lists.rows.size(1) > width
    pair(positions + np.random.default_rng(3).integers(-1, 2, positions.shape) @ cell)


def test_frozen_modules_keep_their_lists(device):
    """As openmm-torch calls them."""
    pair = Pair("charges, box, shifted", device)
    pair.there = torch.jit.freeze(pair.there.eval())
    positions, rng = pair.atoms.positions, np.random.default_rng(4)
    pair(positions)
    for amplitude in (0.01, 0.2, 0.01):
        positions = positions + amplitude * np.sign(rng.normal(size=positions.shape))
        assert pair(positions) == 1


def test_faults_are_told_as_on_the_cpu(device):
    pair = Pair("charges, box", device)
    positions, cell = pair.atoms.positions, pair.atoms.cell.array
    broken = positions.copy()
    broken[3, 1] = np.nan
    for word, where, box in (("position of particle 3", broken, cell), ("cube of 1 A", positions, np.eye(3))):
        pair(positions)
        arguments = [torch.tensor(x / 10).to(device) for x in (where, box)]
        with pytest.raises((RuntimeError, torch.jit.Error), match=word):
            [pair.there(*arguments) for _ in range(2)]  # the first may be a trial of a minimiser
    pair(positions)


def test_a_form_for_gpus_is_refused_on_a_cpu(device):
    pair = Pair("local, box", device)
    on_cpu = torch.jit.load(io.BytesIO(pair.there.save_to_buffer()), map_location="cpu")
    with pytest.raises(RuntimeError, match="make it again with device = cpu"):
        on_cpu(*(torch.tensor(x / 10) for x in (pair.atoms.positions, pair.atoms.cell.array)))
