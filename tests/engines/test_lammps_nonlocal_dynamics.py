"""Attention beyond the cutoff through LAMMPS' own commands: derivatives, dynamics, changes of the system."""

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers
from lammps_runs import SYMBOLS, check_virial, read_dump, run, setup, words, write_data
from test_lammps_nonlocal import KINDS, nonlocal_folder, nonlocal_structure
from toys import nonlocal_toy

from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph

__all__ = ["nonlocal_folder"]

DUMP = """dump {id} all custom {every} {id}.dump id type mol xu yu zu fx fy fz
dump_modify {id} sort id format float %.17g
"""
DYNAMICS = """
timestep 0.0005
neighbor 0.5 bin
fix nve all nve
"""


@pytest.fixture
def place(nonlocal_folder, tmp_path_factory):
    """An empty folder beside models and data files."""
    number = len(list(nonlocal_folder.iterdir()))
    folder = nonlocal_folder / f"run{number}"
    folder.mkdir()
    return folder


def commands(kind: str, name: str, before="", **options) -> str:
    """The commands up to the force field."""
    before += "atom_style molecular\n"
    atoms = nonlocal_structure(name)[0]
    return setup(atoms, f"../data.{name}", f"../{kind}.pt", before=before, **options)


def matches(dump: np.ndarray, kind: str, cell) -> None:
    """PyTorch gives the forces of a dump made with DUMP, at exactly the positions that it has."""
    types, molecules, positions = dump[:, 0].astype(int), dump[:, 1].astype(int), dump[:, 2:5]
    alone = np.where(molecules == 0, -1 - np.arange(len(dump)), molecules)
    numbers = [atomic_numbers[SYMBOLS[t - 1]] for t in types]
    model = nonlocal_toy(kind)
    graph = build_graph(numbers, positions, cell.array, [True] * 3, needs_of(model).cutoff, group=alone)
    known = evaluate(model, graph._replace(positions=torch.tensor(positions)), 1)
    np.testing.assert_allclose(dump[:, 5:8], known.forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_derivatives(place, kind):
    script = commands(kind, "ions", before="atom_modify map yes\n") + (
        """
group few id 1:31:3
fix force few numdiff 1 1e-4
dump out few custom 1 numdiff.dump id type fx fy fz f_force[1] f_force[2] f_force[3]
dump_modify out sort id format float %.17g
run 0
"""
    )
    run(place, script, 2)
    atoms = read_dump(place / "numdiff.dump")
    assert np.abs(atoms[:, 1:4]).max() > 0.05
    np.testing.assert_allclose(atoms[:, 1:4], atoms[:, 4:7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_pressure_is_a_derivative_by_the_box(place, kind):
    """Image flags carry molecules over the boundary through a strained box."""
    check_virial(place, commands(kind, "ions"), nonlocal_structure("ions")[0].cell.array, 1e-6)


@pytest.mark.parametrize(("kind", "name"), [("sphc", "chain"), ("efa", "ions"), ("reciprocal", "ions")])
def test_trajectories_do_not_know_ranks(place, kind, name):
    ends = {}
    for ranks in (1, 4):
        script = commands(kind, name) + "velocity all create 3000 7 loop geom\n" + DYNAMICS
        script += DUMP.format(id=f"nve{ranks}", every=40)
        script += f"dump owners all custom 40 owners{ranks}.dump id proc\ndump_modify owners sort id\n"
        if ranks == 4:
            script += "comm_style tiled\nbalance 1.0 rcb\n"
        output = run(place, script + "run 40\n", ranks)
        assert words(output, "Neighbor list builds =")[0] > 3
        ends[ranks] = read_dump(place / f"nve{ranks}.dump")
        before, after = (read_dump(place / f"owners{ranks}.dump", frame) for frame in (1, 2))
        assert ranks == 1 or (before != after).sum() > 1, "atoms must move between ranks"
    np.testing.assert_allclose(ends[4], ends[1], rtol=0, atol=1e-10)
    matches(ends[4], kind, nonlocal_structure(name)[0].cell)


@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_energy_is_conserved(place, kind):
    # weights at random hold no molecule together: springs keep the atoms where forces are smooth
    script = commands(kind, "corner" if kind == "sphc" else "ions") + (
        """
velocity all create 300 7 loop geom mom yes
fix springs all spring/self 1.0
fix_modify springs energy yes
thermo 5
thermo_style custom time etotal ke
thermo_modify format float %.15g
"""
    )
    output = run(place, script + DYNAMICS + "run 150\n", 2)
    table = re.search(r"Time +TotEng.*?\n(.*?)\nLoop", output, re.S)[1]
    time, total, kinetic = np.array([line.split() for line in table.splitlines()], dtype=float).T
    assert np.ptp(kinetic) > 0.1, "the atoms must move for the test to mean anything"
    assert abs(np.polyfit(time, total, 1)[0]) / 30 < 1e-5
    assert np.ptp(total) < 1e-3 * np.ptp(kinetic)


def test_restart_continues(place):
    whole = commands("sphc", "chain") + "velocity all create 1000 7 loop geom\n" + DYNAMICS
    whole += DUMP.format(id="whole", every=10) + "run 10\nwrite_restart half.restart\nrun 10\nclear\n"
    again = "read_restart half.restart\npair_style so3k precision float64\npair_coeff * * ../sphc.pt H C O\n"
    again += DYNAMICS + DUMP.format(id="again", every=10)
    run(place, whole + again + "run 10\n", 2)
    np.testing.assert_allclose(
        read_dump(place / "again.dump"), read_dump(place / "whole.dump"), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_molecules_come_and_go(place, kind):
    """Inserted during a run, then a molecule cut in two and atoms deleted."""
    (place / "pair.molecule").write_text(
        "two atoms\n\n2 atoms\n\nCoords\n\n1 0 0 0\n2 0.6 0.7 0.3\n\nTypes\n\n1 3\n2 1\n"
    )
    script = commands(kind, "cluster", before="") + (
        """
neighbor 0.5 bin
molecule pair pair.molecule
region gap block 1 16 1 15 1 8 units box
fix nve all nve
fix add all deposit 2 0 2 4321 region gap mol pair near 2.5
timestep 0.0001
run 6
set atom 1*100 mol 77
group last id 250:294
delete_atoms group last compress no
"""
    )
    run(place, script + DUMP.format(id="out", every=1) + "run 0\n", 3)
    dump = read_dump(place / "out.dump")
    assert len(dump) == 297 + 4 - 45
    assert len(np.unique(dump[:, 1])) == 6
    matches(dump, kind, nonlocal_structure("cluster")[0].cell)


def test_atoms_of_other_styles_are_no_members(place):
    """Argon with the molecule number of a group: a style of its own, here without strength."""
    atoms, molecules = nonlocal_structure("ions")
    mixed = atoms + Atoms("ArAr", positions=[[1, 9, 1], [6, 12, 6]])
    write_data(place / "data.mixed", mixed, ("H", "C", "O", "Ar"), [*molecules, 1, 2])
    overlay = "hybrid/overlay so3k precision float64 lj/cut 1.0"
    script = setup(atoms, "data.mixed", "so3k ../sphc.pt", overlay, before="atom_style molecular\n")
    script = script.rstrip() + " NULL\npair_coeff * * lj/cut 0.0 1.0\n"
    run(place, script + DUMP.format(id="out", every=1) + "run 0\n", 2)
    matches(read_dump(place / "out.dump")[: len(atoms)], "sphc", atoms.cell)
