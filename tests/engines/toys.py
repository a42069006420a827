"""A small random model and structures for the engine tests."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from so3k_md.export.torchscript import archive, script
from so3k_md.model import ModelConfig, So3krates, set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph

STRUCTURES = ("open", "lone", "periodic", "triclinic", "small")
EFA = {"nonlocal_": "efa", "efa_features": 6, "efa_values": 5}
NONLOCAL_KINDS = {
    "sphc": {"nonlocal_": "sphc", "kappa": 1.5, "layers": 3},
    "efa": EFA | {"efa_waves": "lebedev", "efa_grid": 50, "efa_reach": 18.0},
    "reciprocal": EFA | {"efa_waves": "reciprocal"},
}


@functools.cache
def toy_model() -> So3krates:
    """Weights at random, in float64, with forces of about 1 eV/Å."""
    config = ModelConfig(
        features=16, layers=2, degrees=(1, 2), heads=2, n_rbf=8, radial_hidden=16, chi_hidden=8, cutoff=4.0
    )
    return loud(So3krates(config, elements=[1, 6, 8], seed=3))


@functools.cache
def nonlocal_toy(kind: str) -> So3krates:
    """The toy model with attention beyond a cutoff of 3 Å; see NONLOCAL_KINDS."""
    config = replace(toy_model().config, cutoff=3.0, **NONLOCAL_KINDS[kind])
    return loud(So3krates(config, elements=[1, 6, 8], seed=3))


def loud(model: So3krates) -> So3krates:
    """A model in float64 whose forces are about 1 eV/Å."""
    model = set_dtype(model, torch.float64).eval()
    model.energies.head.scale.fill_(5.0)
    model.energies.head.shift.copy_(-100.0 * torch.arange(model.config.n_species))
    return model.requires_grad_(False)


def save_toy(path, model=None) -> str:
    """The toy model or another one as an exported file."""
    Path(path).write_bytes(archive(script(toy_model() if model is None else model)))
    return str(path)


def structure(name: str) -> Atoms:
    """One of STRUCTURES; atoms of the periodic ones lie in several images."""
    if name == "open":
        return rattled(molecule("CH3CH2OH"))
    if name == "lone":
        return Atoms("O", positions=[[1.0, 2.0, 3.0]])
    if name == "small":  # shorter than the cutoff: an atom sees several images of itself
        atoms = Atoms("OHH", positions=[[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], pbc=True)
        atoms.cell = [[3.1, 0, 0], [0.5, 2.9, 0], [-0.8, 0.6, 3.3]]
    else:
        atoms = ethanols(2)
        if name == "triclinic":
            atoms.set_cell(atoms.cell @ [[1, 0, 0], [0.3, 0.95, 0], [-0.25, 0.2, 1.02]], scale_atoms=True)
    images = np.random.default_rng(5).integers(-2, 3, (len(atoms), 3))
    atoms.positions += images @ atoms.cell.array
    return rattled(atoms)


def mixture(name: str) -> tuple[Atoms, np.ndarray]:
    """Molecules of 14, 9, 3 and 3 atoms, each in one piece, and the molecule of each atom.

    Args:
        name: open, periodic or triclinic; in the box the largest one touches its own images.
    """
    rng = np.random.default_rng(9)
    kinds = ("trans-butane", "CH3CH2OH", "H2O", "H2O")
    places = 5.5 * np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]])
    atoms = Atoms()
    for kind, place in zip(kinds, places, strict=True):
        one = molecule(kind)
        one.translate(place + 0.3 * rng.normal(size=3) - one.get_center_of_mass())
        atoms += one
    if name != "open":
        atoms.set_cell([11.0, 6.6, 11.0])
        atoms.pbc = True
    if name == "triclinic":
        atoms.set_cell(atoms.cell @ [[1, 0, 0], [0.2, 1.0, 0], [-0.25, 0.1, 1.0]], scale_atoms=False)
    return rattled(atoms), np.repeat(range(4), [14, 9, 3, 3])


def ethanols(per_side: int, spacing: float = 5.0) -> Atoms:
    """A periodic box of turned ethanol molecules on a grid."""
    rng = np.random.default_rng(7)
    box = Atoms(pbc=True, cell=[per_side * spacing] * 3)
    for place in np.ndindex((per_side,) * 3):
        one = molecule("CH3CH2OH")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate(np.array(place) * spacing - one.get_center_of_mass())
        box += one
    return box


def rattled(atoms: Atoms) -> Atoms:
    """Off the symmetric places, so that no force is zero by symmetry."""
    atoms.positions += 0.05 * np.random.default_rng(11).normal(size=atoms.positions.shape)
    return atoms


def pytorch(atoms: Atoms, model=None, group=None):
    """The model's own answer, from a fresh neighbor search."""
    model = toy_model() if model is None else model
    graph = build_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, needs_of(model).cutoff, group=group
    )
    return evaluate(model, graph, 1)
