"""Long-range physics through LAMMPS' own commands: derivatives, dynamics, changes of the system."""

import copy
import re

import numpy as np
import pytest
from ase import Atoms
from lammps_runs import check_virial, read_dump, refused, run, words
from so3lr_toys import so3lr_toy
from test_lammps_so3lr import CUTOFF_LR, FRAGMENTS, SYMBOLS, commands, long_folder, long_structure, place

from so3k_md.engines.ase import So3kCalculator
from so3k_md.graph import COULOMB

__all__ = ["long_folder", "place"]

DUMP = """dump {id} all custom {every} {id}.dump id type xu yu zu fx fy fz
dump_modify {id} sort id format float %.17g
"""
STATES = [("triclinic", "kspace", ""), ("triclinic", "shifted", ""), ("ions", "kspace", FRAGMENTS)]


def matches(dump: np.ndarray, name: str, coulomb: str) -> None:
    """PyTorch gives the forces of a dump at the positions that it has, for atoms in any order."""
    atoms = long_structure(name)
    symbols = [SYMBOLS[int(kind) - 1] for kind in dump[:, 0]]
    there = Atoms(symbols, dump[:, 1:4], cell=atoms.cell, pbc=atoms.pbc, info=atoms.info)
    if "fragment" in atoms.arrays:
        there.arrays["fragment"] = atoms.arrays["fragment"]
    there.calc = So3kCalculator(copy.deepcopy(so3lr_toy()), coulomb=coulomb, cutoff_lr=CUTOFF_LR)
    np.testing.assert_allclose(dump[:, 4:7], there.get_forces(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "coulomb", "further"), STATES)
def test_forces_are_derivatives(place, name, coulomb, further):
    script = commands(name, coulomb, further, before="atom_modify map yes\n") + (
        """
group few id 1:24:4
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


@pytest.mark.parametrize("coulomb", COULOMB)
def test_pressure_is_a_derivative_by_the_box(place, coulomb):
    check_virial(place, commands("triclinic", coulomb), long_structure("triclinic").cell.array, 1e-5)


@pytest.mark.parametrize(("name", "coulomb"), [("water", "kspace"), ("water", "shifted"), ("ions", "kspace")])
def test_trajectories_do_not_know_ranks(place, name, coulomb):
    """Atoms of fragments and of pairs change owners, lists are made anew."""
    ends = {}
    further = FRAGMENTS if name == "ions" else ""
    for ranks in (1, 4):
        script = commands(name, coulomb, further) + "velocity all create 4000 7 loop geom\ntimestep 0.0005\n"
        script += "neighbor 0.4 bin\nfix nve all nve\n" + DUMP.format(id=f"nve{ranks}", every=40)
        script += f"dump owners all custom 40 owners{ranks}.dump id proc\ndump_modify owners sort id\n"
        if ranks == 4:
            script += "comm_style tiled\nbalance 1.0 rcb\n"
        if name == "ions":  # no atom leaves an open box unseen
            script += "change_box all x delta -9 9 y delta -9 9 z delta -9 9 units box\n"
        output = run(place, script + "run 40\n", ranks)
        assert words(output, "Neighbor list builds =")[0] > 3
        ends[ranks] = read_dump(place / f"nve{ranks}.dump")
        before, after = (read_dump(place / f"owners{ranks}.dump", frame) for frame in (1, 2))
        assert ranks == 1 or name == "ions" or (before != after).sum() > 1, "atoms must move between ranks"
    np.testing.assert_allclose(ends[4], ends[1], rtol=0, atol=1e-10)
    matches(ends[4], name, coulomb)


def test_box_changes_with_the_pressure(place):
    """NPT: the waves follow the cell at every step, and two ranks see the same cell."""
    ends = {}
    for ranks in (1, 2):
        script = commands("triclinic", "kspace") + "velocity all create 300 7 loop geom\ntimestep 0.0005\n"
        script += "fix npt all npt temp 300 300 0.05 tri 1e5 1e5 0.1\n" + DUMP.format(
            id=f"npt{ranks}", every=20
        )
        script += "run 20\n"
        script += 'print "box $(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)"\n'
        ends[ranks] = words(run(place, script, ranks), "box"), read_dump(place / f"npt{ranks}.dump")
    np.testing.assert_allclose(ends[2][0], ends[1][0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ends[2][1], ends[1][1], rtol=0, atol=1e-8)
    assert abs(ends[1][0][0] - long_structure("triclinic").cell[0, 0]) > 1e-3


def test_charges_of_swapped_types(place):
    """Types change without a new list, and with them species of near and of distant rows."""
    script = commands("water", "shifted") + (
        """
fix swap all atom/swap 1 10 5 30000 ke no types 1 4
fix nve all nve
timestep 0.0001
run 2
print "swaps $(f_swap[2])"
"""
    )
    output = run(place, script + DUMP.format(id="swapped", every=1) + "run 0\n", 2)
    assert words(output, "swaps")[0] > 0
    dump = read_dump(place / "swapped.dump")
    assert (dump[:, 0] == 4).sum() == 27
    matches(dump, "water", "shifted")


def test_a_rank_may_lose_its_last_atom(place):
    energies = []
    for ranks in (1, 2):
        script = commands("dimer", "kspace", before=f"processors {ranks} 1 1\n") + (
            "run 0\ngroup gone id 4:6\ndelete_atoms group gone compress no\n"
            'run 0\nprint "left $(pe:%.17g) $(atoms)"\n'
        )
        energies.append(words(run(place, script, ranks), "left"))
    assert energies[0][1] == energies[1][1] == 3
    assert energies[0][0] == pytest.approx(energies[1][0], abs=1e-10)


def test_a_charged_fragment_that_leaves_is_missed(place):
    """A run does not go on with charges that nobody has."""
    script = commands("ions", "kspace", FRAGMENTS) + (
        "group plus id 1:5\nregion all block INF INF INF INF INF INF\n"
        "fix away plus evaporate 2 5 all 4711 molecule yes\nfix move all nve\ntimestep 0.0001\nrun 4\n"
    )
    assert re.fullmatch("so3k: fragment_charge names molecule 7, which no atom has.*", refused(place, script))


def test_charges_of_a_style_that_did_not_compute_are_zero(place):
    script = commands("dimer", "kspace") + (
        "pair_modify compute no\nfix q all pair 1 so3k charges 0\ncompute largest all reduce maxabs f_q\n"
        'thermo_style custom step c_largest\nrun 0\nprint "largest $(c_largest)"\n'
    )
    assert words(run(place, script), "largest") == [0]
