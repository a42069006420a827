"""Charges, dipole and parts of the energy along a run: what the ASE calculator says of the same positions."""

import ase.io
import numpy as np
import openmm
import pytest
from openmm import app
from openmm_doors import BACKENDS
from openmmml import MLPotential
from so3lr_toys import ammonium, by_ase, so3lr_toy, waters
from toys import save_toy, toy_model

from so3k_md.engines.openmm import add_model, create_system
from so3k_md.engines.openmm.report import So3kReporter
from so3k_md.engines.openmm.run import add_reporters
from so3k_md.engines.openmm.topology import topology_of
from so3k_md.errors import So3kError
from so3k_md.graph import PARTS
from so3k_md.units import EV_IN_KJ_MOL

# files of one model keep these columns, whatever becomes of those of several
COLUMNS = (
    '#"Step","Time (ps)","Short Range (kJ/mole)","Repulsion (kJ/mole)","Electrostatics (kJ/mole)",'
    '"Dispersion (kJ/mole)","Dipole X (e*A)","Dipole Y (e*A)","Dipole Z (e*A)"'
)


def simulation_of(structure, backend="auto", model=None, **options):
    made = create_system(structure, so3lr_toy() if model is None else model, backend=backend, **options)
    return started(made)


def started(made):
    simulation = app.Simulation(
        made.topology,
        made.system,
        openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(made.positions_nm)
    return simulation


def numbers_of(path):
    head, *rows = path.read_text().splitlines()
    assert head == COLUMNS
    return np.array([[float(word) for word in row.split(",")] for row in rows])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [ammonium, waters])
def test_table_and_frames_equal_ase(make, backend, tmp_path):
    simulation = simulation_of(make(), backend)
    table, frames = tmp_path / "physics.csv", tmp_path / "physics.xyz"
    simulation.reporters += [So3kReporter(file, 2, simulation.system) for file in (table, frames)]
    simulation.step(5)
    rows, images = numbers_of(table), ase.io.read(frames, ":")
    assert rows[:, 0].tolist() == [2, 4] == [image.info["step"] for image in images]
    for row, image in zip(rows, images, strict=True):
        image.info |= {"charge": make().info.get("charge", 0)}
        found = by_ase(image)
        parts = [found["energy_parts"][name] * EV_IN_KJ_MOL for name in PARTS]
        np.testing.assert_allclose(row[1:], [0.0005 * row[0], *parts, *found["dipole"]], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose([image.info[f"{name}_kj_mol"] for name in PARTS], row[2:6], rtol=1e-8)
        np.testing.assert_allclose(image.get_charges(), found["charges"], atol=1e-6)
        np.testing.assert_allclose(image.arrays["hirshfeld_ratios"], found["hirshfeld_ratios"], atol=1e-6)


def test_a_continued_run_appends_and_another_is_refused(tmp_path):
    simulation, file = simulation_of(ammonium()), tmp_path / "physics.csv"
    for append in (False, True):
        simulation.reporters = [So3kReporter(file, 1, simulation.system, append=append)]
        simulation.step(2)
    assert numbers_of(file)[:, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(So3kError, match="exists already"):
        So3kReporter(file, 1, simulation.system)
    So3kReporter(file, 1, simulation.system, overwrite=True)
    assert file.read_text() == COLUMNS + "\n"


def test_a_part_of_a_system_and_interpolation(tmp_path):
    rows = [3, 4, 5]
    simulation = simulation_of(waters(), atoms=rows)
    simulation.reporters.append(So3kReporter(tmp_path / "part.xyz", 1, simulation.system))
    simulation.step(1)
    (frame,) = ase.io.read(tmp_path / "part.xyz", ":")
    np.testing.assert_array_equal(frame.numbers, [8, 1, 1])
    classical = openmm.System()
    for mass in 8 * [16.0, 1.0, 1.0]:
        classical.addParticle(mass)
    model = save_toy(tmp_path / "toy.pt", so3lr_toy())
    mixed = MLPotential("so3k", model=model, spin=0).createMixedSystem(
        topology_of(waters()), classical, rows, interpolate=True, charge=0
    )
    assert So3kReporter(tmp_path / "mixed.csv", 1, mixed).modules[0].seen.coulomb == "kspace"


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_of_several_models_is_reported(backend, tmp_path):
    regions, named = ([3, 4, 5], [12, 13, 14]), ("Region 1 ", "Region 2 ")
    made = create_system(waters(), so3lr_toy(), backend=backend, atoms=regions[0])
    add_model(made.system, made.topology, toy_model(), backend=backend, atoms=[6, 7, 8])  # has no charges
    add_model(made.system, made.topology, so3lr_toy(), backend=backend, atoms=regions[1])
    simulation = started(made)
    table, frames = tmp_path / "physics.csv", tmp_path / "physics.xyz"
    simulation.reporters += [So3kReporter(file, 1, simulation.system) for file in (table, frames)]
    for rows in regions:
        alone = create_system(waters(), so3lr_toy(), backend=backend, atoms=rows).system
        simulation.reporters.append(So3kReporter(tmp_path / f"{rows[0]}.csv", 1, alone))
        simulation.reporters.append(So3kReporter(tmp_path / f"{rows[0]}.xyz", 1, alone))
    simulation.step(1)
    head, row = table.read_text().splitlines()
    step, time, *columns = COLUMNS.split(",")
    assert head == ",".join([step, time, *(f'"{name}{text[1:]}' for name in named for text in columns)])
    single = [np.loadtxt(tmp_path / f"{rows[0]}.csv", delimiter=",") for rows in regions]
    np.testing.assert_allclose(
        np.array(row.split(","), float), [*single[0], *single[1][2:]], rtol=1e-8, atol=1e-9
    )
    (frame,) = ase.io.read(frames, ":")
    parts = [ase.io.read(tmp_path / f"{rows[0]}.xyz") for rows in regions]
    assert frame.arrays["region"].tolist() == 3 * [1] + 3 * [2]
    np.testing.assert_allclose(frame.get_charges(), np.concatenate([part.get_charges() for part in parts]))
    np.testing.assert_allclose(frame.positions, np.concatenate([part.positions for part in parts]))
    np.testing.assert_allclose(frame.cell, parts[0].cell)
    for k, part in enumerate(parts, start=1):
        np.testing.assert_allclose(frame.info[f"region_{k}_dipole"], part.get_dipole_moment(), rtol=1e-7)
        for name in ("electrostatics_kj_mol", "dispersion_kj_mol"):
            np.testing.assert_allclose(frame.info[f"region_{k}_{name}"], part.info[name], rtol=1e-7)


def test_models_that_share_atoms_fill_a_table_only_and_a_table_keeps_its_columns(tmp_path):
    made = create_system(waters(), so3lr_toy(), atoms=[3, 4, 5])
    So3kReporter(tmp_path / "physics.csv", 1, made.system)
    add_model(made.system, made.topology, so3lr_toy(), atoms=[0, 1, 2, 3, 4, 5])
    with pytest.raises(So3kError, match=r"physics\.xyz: several models describe atom 3"):
        So3kReporter(tmp_path / "physics.xyz", 1, made.system)
    with pytest.raises(So3kError, match=r"columns are not those of the 2 regions"):
        So3kReporter(tmp_path / "physics.csv", 1, made.system, append=True)
    assert not (tmp_path / "physics.xyz").exists()
    assert (tmp_path / "physics.csv").read_text() == COLUMNS + "\n"
    So3kReporter(tmp_path / "both.csv", 1, made.system)


def test_runs_report_by_themselves(tmp_path):
    for name, model, written in (("charges", so3lr_toy(), True), ("local", toy_model(), False)):
        simulation = simulation_of(waters(), model=model)
        add_reporters(simulation, tmp_path / name, 1)
        simulation.step(1)
        assert (tmp_path / name / "physics.csv").exists() == written


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        ("physics.npz", so3lr_toy(), "choose one of them"),
        ("absent/physics.csv", so3lr_toy(), "does not exist"),
        ("physics.csv", toy_model(), "no charges to report"),
    ],
)
def test_unusable_reports_are_refused(file, model, message, tmp_path):
    system = create_system(topology_of(waters()), model).system
    with pytest.raises(So3kError, match=message):
        So3kReporter(tmp_path / file, 1, system)
    assert not list(tmp_path.iterdir())
