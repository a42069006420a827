"""Energies have no kinks: finite differences converge to the force, at linear and planar molecules too.

There norms of χ vanish by symmetry, which are smoothed by `norm_eps` in the form of 2022.
"""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator

from so3k_md import ModelConfig, So3krates, load
from so3k_md.checkpoint import metadata
from so3k_md.config import from_mapping
from so3k_md.engines.ase import So3kCalculator
from so3k_md.model import set_dtype
from so3k_md.model.weights import file_weights, load_weights

SCAN = "simulations/data/cumulene/c9h4_gfn2_scan_public.npz"


def linear(symbols: str, *lengths: float) -> Atoms:
    z = np.cumsum([0.0, *lengths])
    return Atoms(symbols, np.stack([0 * z, 0 * z, z], axis=1))


CO2, ACETYLENE, CARBON = linear("OCO", 1.16, 1.16), linear("HCCH", 1.06, 1.2, 1.06), linear("C3", 1.29, 1.29)
BENT = [("ethanol-rmd17", CO2), ("ethanol-rmd17", ACETYLENE)]
BENT += [(f"cumulene-{kind}", CARBON) for kind in ("local", "sphc", "efa")]


def corner(calculator: Calculator, atoms: Atoms, step: float) -> float:
    """Half the jump of the derivative at a linear molecule that a bend by ± step, Å, shows, eV/Å."""
    mode = np.zeros((len(atoms), 3))
    mode[[0, -1], 0], mode[1:-1, 0] = 1.0, -2.0 / (len(atoms) - 2)
    energies = []
    for turn in (-step, 0.0, step):
        bent = atoms.copy()
        bent.positions += turn * mode
        energies.append(calculator.get_potential_energy(bent))
    return (energies[0] - 2 * energies[1] + energies[2]) / (2 * step)


@pytest.mark.filterwarnings("ignore:the energy of")  # of molecules that the models were not fitted to
@pytest.mark.parametrize(("name", "atoms"), BENT)
def test_linear_molecules_are_no_corners(name, atoms):
    calculator = So3kCalculator(name, dtype="float64", kernels="off")
    large, small = (abs(corner(calculator, atoms, step)) for step in (1e-3, 1e-4))
    assert small < 0.2 * large + 1e-7


def test_without_smoothing_they_are():
    """The published form, `norm_eps: 0`, on the same weights: the test above can fail."""
    shipped = load("ethanol-rmd17")
    document = metadata(shipped)
    config = from_mapping(ModelConfig, document["config"] | {"norm_eps": 0.0}, "model")
    model = set_dtype(So3krates(config, document["elements"]), torch.float64).eval()
    load_weights(model, file_weights(shipped))
    calculator = So3kCalculator(model)
    large, small = (abs(corner(calculator, CO2, step)) for step in (1e-3, 1e-4))
    assert small > 0.9 * large
    assert large > 1.0


@pytest.mark.parametrize("name", ["cumulene-sphc", "cumulene-efa"])
@pytest.mark.parametrize("angle", [0.0, 0.002, 0.3, 1.2])
def test_the_torsion_is_smooth(name, angle):
    """From the planar molecule, where χ of the two ends agree and their distance vanishes, rad."""
    with np.load(SCAN) as scan:
        atoms = Atoms(scan["z"], scan["R"][np.abs(scan["theta"]).argmin()])
    carbons = np.flatnonzero(atoms.numbers == 6)
    lengths = np.linalg.norm(atoms.positions[carbons][:, None] - atoms.positions[carbons], axis=2)
    end, other = carbons[list(np.unravel_index(lengths.argmax(), lengths.shape))]
    turned = (atoms.numbers == 1) & (np.linalg.norm(atoms.positions - atoms.positions[end], axis=1) < 1.3)
    axis = atoms.positions[end] - atoms.positions[other]
    axis /= np.linalg.norm(axis)
    calculator = So3kCalculator(name, dtype="float64", kernels="off")

    def at(turn: float) -> Atoms:
        there = atoms.copy()
        part = there[turned]
        part.rotate(np.degrees(turn), axis, center=atoms.positions[end])
        there.positions[turned] = part.positions
        return there

    here = at(angle)
    arms = here.positions[turned] - atoms.positions[end]
    derivative = -np.sum(np.cross(axis, arms) * calculator.get_forces(here)[turned])
    errors = []
    for step in (1e-2, 1e-3, 1e-4):
        rise = calculator.get_potential_energy(at(angle + step)) - calculator.get_potential_energy(
            at(angle - step)
        )
        errors.append(abs(rise / (2 * step) - derivative))
    assert errors[2] < 1e-5
    assert errors[2] < 0.05 * errors[1] + 1e-7
