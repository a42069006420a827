"""A small random model with all the physics of SO3LR, and charged and periodic structures for it."""

import copy
import functools
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from toys import rattled

from so3k_md.engines.ase import So3kCalculator
from so3k_md.model import ModelConfig, So3krates, set_dtype
from so3k_md.needs import with_needs

SMALL = {"features": 32, "layers": 2, "n_rbf": 8, "radial_hidden": 16, "chi_hidden": 8, "n_species": 20}


@functools.cache
def so3lr_toy(seed: int = 3) -> So3krates:
    """Weights at random in float64; forces of some eV/Å, charges of some tenths of e, singlets only."""
    model = So3krates(replace(ModelConfig.preset("so3lr"), **SMALL), [1, 6, 7, 8], seed)
    model = set_dtype(model, torch.float64).eval().requires_grad_(False)
    model.energies.head.scale.fill_(2.0)
    model.energies.physics.charge_head.mlp.out.weight.mul_(0.3)
    model.energies.physics.charge_head.table.copy_(torch.linspace(0.4, -0.4, 20, dtype=torch.float64))
    return with_needs(model, singlets_only=True, energy_shift=-10.0)


def water_dimer() -> Atoms:
    other = molecule("H2O")
    other.rotate(70, "x")
    other.translate([2.9, 0.3, 0.2])
    return rattled(molecule("H2O") + other)


def ammonium() -> Atoms:
    """NH4+."""
    d = 1.03 / np.sqrt(3)
    atoms = Atoms("NH4", d * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]))
    atoms.info["charge"] = 1
    return rattled(atoms)


def ions() -> Atoms:
    """NH4+ and formate, each a fragment, with three waters in one more."""
    formate = molecule("HCOOH")
    del formate[[atom.index for atom in formate if atom.symbol == "H"][0]]
    atoms = ammonium()
    for k, one in enumerate([formate] + 3 * [molecule("H2O")]):
        one.rotate(40 * k, "y")
        one.translate(np.array([4.0, 0.5 * k, 3.0 * k]) - one.get_center_of_mass())
        atoms += one
    fragment = [7] * 5 + [2] * len(formate) + [4] * 9
    atoms.info = {"fragment_charges": [-1, 0, 1]}
    atoms.arrays["fragment"] = np.array(fragment)
    return atoms


def waters(per_side: int = 2, triclinic: bool = False) -> Atoms:
    """A periodic box of turned waters, atoms in several images."""
    rng = np.random.default_rng(7)
    box = Atoms(pbc=True, cell=[3.2 * per_side] * 3)
    for place in np.ndindex((per_side,) * 3):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate(3.2 * np.array(place) - one.get_center_of_mass())
        box += one
    if triclinic:
        box.set_cell(box.cell @ [[1.1, 0, 0], [0.1, 1.1, 0], [-0.15, 0.2, 1.1]], scale_atoms=False)
    return rattled(box)


STRUCTURES = {
    "dimer": water_dimer,
    "ammonium": ammonium,
    "ions": ions,
    "periodic": functools.partial(waters, 3),
    "triclinic": functools.partial(waters, 2, True),
}


def by_ase(atoms: Atoms, model: So3krates | None = None, **options) -> dict:
    """What the ASE calculator says: energy, forces and the rest of its results."""
    there = atoms.copy()
    there.calc = So3kCalculator(copy.deepcopy(so3lr_toy() if model is None else model), **options)
    there.get_potential_energy()
    return there.calc.results
