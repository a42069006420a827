"""Values in other units than stated are questioned, and usual data are not."""

from pathlib import Path

import ase.units as u
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from so3k_md.data import read_frames
from so3k_md.data.doubts import unit_doubts
from so3k_md.data.frames import Frame

ETHANOL = Path(__file__).parents[2] / "simulations/data/rmd17/rmd17_ethanol_train01.npz"


@pytest.fixture(scope="module")
def frames():
    return read_frames(ETHANOL, energy_key="E", forces_key="F")[:100]


def scaled(frames: list[Frame], energy: float = 1.0, forces: float = 1.0, length: float = 1.0) -> list[Frame]:
    return [
        f._replace(energy=f.energy * energy, forces=f.forces * forces, positions=f.positions * length)
        for f in frames
    ]


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({}, None),
        ({"forces": u.Bohr}, "force constant of C-H bonds"),  # Hartree/Bohr read as Hartree/Å
        ({"energy": 1 / u.Hartree}, "energy_unit: Hartree"),
        ({"energy": u.mol / u.kcal, "forces": u.mol / u.kcal}, "energy_unit: kcal/mol"),
        ({"forces": -1.0}, "change their sign"),
        ({"length": 1 / u.Bohr}, "length_unit: Bohr"),
        ({"length": 0.1}, "length_unit: nm"),
    ],
)
def test_units(frames, factors, says):
    doubts = unit_doubts(scaled(frames, **factors))
    assert doubts == [] if says is None else any(says in doubt for doubt in doubts)


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (1 / u.GPa, "stress_unit: GPa, or eV of virials?"),
        (10 / u.GPa, "stress_unit: kbar or GPa?"),
        (1.0, None),
    ],
)
def test_stresses_in_other_units_are_questioned(factor, says):
    copper = []
    for seed in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        geometry = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
        labels = atoms.get_potential_energy(), atoms.get_forces(), factor * atoms.get_stress(voigt=False)
        copper.append(Frame(*geometry, *labels, seed, "made"))
    doubts = unit_doubts(copper)
    assert doubts == [] if says is None else any(says in doubt for doubt in doubts)
