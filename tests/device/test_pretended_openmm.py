"""OpenMM's module on a device: as on the CPU, with one read a step, where the forces are handed over."""

import io

import numpy as np
import pytest
import torch
from pretend import waits
from so3lr_toys import so3lr_toy, water_dimer, waters
from toys import mixture, nonlocal_toy, structure, toy_model

from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.structure.images import spanning_tree


def groups(name, kind):
    atoms, group = mixture(name)
    if kind == "reciprocal":  # whose only group is the cell
        return atoms, {"parent": range(len(atoms))}
    tree = spanning_tree(atoms.positions, atoms.cell.array, atoms.pbc, group)
    return atoms, {"group": group, "parent": tree if atoms.pbc.any() else None}


CASES = {
    "local, open": lambda: (toy_model(), structure("open"), {"bonded": [0, 1, 2, 3]}),
    "local, box": lambda: (toy_model(), structure("triclinic"), {"bonded": [0, 1, 2, 3]}),
    "charges, open": lambda: (so3lr_toy(), water_dimer(), {}),
    "charges, box": lambda: (so3lr_toy(), waters(), {"cutoff_lr": 6.0}),
    "charges, box, shifted": lambda: (so3lr_toy(), waters(), {"cutoff_lr": 6.0, "coulomb": "shifted+self"}),
    "sphc, open": lambda: (nonlocal_toy("sphc"), *groups("open", "sphc")),
    "sphc, box": lambda: (nonlocal_toy("sphc"), *groups("triclinic", "sphc")),
    "efa, open": lambda: (nonlocal_toy("efa"), *groups("open", "efa")),
    "efa, box": lambda: (nonlocal_toy("efa"), *groups("triclinic", "efa")),
    "waves, box": lambda: (nonlocal_toy("reciprocal"), *groups("triclinic", "reciprocal")),
}


class Pair:
    """The module on the CPU and on the device, called with the same positions."""

    def __init__(self, model, atoms, options, device):
        periodic = bool(atoms.pbc.any())
        self.ours = script_for_openmm(model, atoms.numbers.tolist(), periodic=periodic, **options)
        content = io.BytesIO(self.ours.save_to_buffer())
        self.there = torch.jit.load(content, map_location=device)
        self.device = device
        self.box = atoms.cell.array / 10 if periodic else None

    def __call__(self, positions, box=None, places=True):
        """Checks that both agree, and returns the reads of the device, those for the lattice sum left out."""
        box = self.box if box is None else box
        arguments = [None if x is None else torch.tensor(x) for x in (positions, box)]
        moved = [None if x is None else x.to(self.device) for x in arguments]
        with waits(places) as found:
            energy, forces = self.there(*moved)
        expected = self.ours(*arguments)
        torch.testing.assert_close(energy.cpu(), expected[0], rtol=1e-11, atol=0)
        scale = float(expected[1].abs().max())
        torch.testing.assert_close(forces.cpu(), expected[1], rtol=0, atol=1e-10 * scale)
        return {where: n for where, n in found.items() if "kspace" not in where[1]}

    @property
    def builds(self):
        return self.there.seen.lists.near.builds


@pytest.mark.parametrize("name", CASES)
def test_a_step_with_kept_lists_reads_once_where_forces_are_handed_over(name, device):
    model, atoms, options = CASES[name]()
    pair, rng = Pair(model, atoms, options, device), np.random.default_rng(2)
    positions = atoms.positions / 10
    pair(positions)
    for _ in range(3):
        positions = positions + 3e-4 * rng.normal(size=positions.shape)
        reads = pair(positions)
        assert list(reads.values()) == [1]
        assert [what for what, _ in reads] == ["number to the host"]
        assert "engines/openmm/module.py" in next(iter(reads))[1]
    assert pair.builds == 1


@pytest.mark.parametrize("name", CASES)
def test_frozen_modules_read_as_often(name, device):
    """As openmm-torch calls them; lines of frozen code are unknown."""
    model, atoms, options = CASES[name]()
    pair = Pair(model, atoms, options, device)
    pair.there = torch.jit.freeze(pair.there.eval())
    pair(atoms.positions / 10, places=False)
    reads = pair(atoms.positions / 10 + 1e-4, places=False)
    assert sum(reads.values()) == (7 if name == "charges, box" else 1)  # six are those of the lattice sum


@pytest.mark.parametrize("name", [name for name in CASES if "box" in name])
def test_what_a_step_took_for_granted_is_noticed(name, device):
    model, atoms, options = CASES[name]()
    pair, rng = Pair(model, atoms, options, device), np.random.default_rng(3)
    positions, box = atoms.positions / 10, atoms.cell.array / 10
    pair(positions)
    for _ in range(3):  # the list must be renewed
        positions = positions + 0.02 * rng.normal(size=positions.shape)
        pair(positions)
    assert pair.builds > 1
    pair(positions + rng.integers(-1, 2, positions.shape) @ box)  # other images
    for strain in (0.01, 0.05, 0.0):  # a barostat moves the box, and moves it back
        pair(positions * (1 + strain), box * (1 + strain))
    pair(positions, box @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))))


def refusal(module, *arguments):
    """The message with which a module refuses positions; the first call may be a trial of a minimiser."""
    with pytest.raises((RuntimeError, torch.jit.Error)) as error:
        [module(*arguments) for _ in range(2)]
    return str(error.value).split("[so3k] ")[-1].strip()


def test_faults_are_told_as_on_the_cpu(device):
    model, atoms, options = CASES["local, box"]()
    pair, positions = Pair(model, atoms, options, device), atoms.positions / 10
    broken, far = positions.copy(), 30.0 * np.arange(len(positions))[:, None] + 0 * positions
    broken[3, 1] = np.nan
    for word, where, box in (
        ("the position of particle 3", broken, pair.box),
        ("the cube of 1 A", positions, np.eye(3) / 10),
        ("has a neighbor within", far, 1000 * pair.box),
    ):
        pair(positions)
        arguments = torch.tensor(where), torch.tensor(box)
        told = refusal(pair.there, *(x.to(device) for x in arguments))
        assert word in told
        assert told == refusal(pair.ours, *arguments)
