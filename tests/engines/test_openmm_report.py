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

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm_report import COLUMNS, So3kReporter
from so3k_md.engines.openmm_run import add_reporters
from so3k_md.engines.openmm_topology import topology_of
from so3k_md.errors import So3kError
from so3k_md.graph import PARTS
from so3k_md.units import EV_IN_KJ_MOL


def simulation_of(structure, backend="auto", model=None, **options):
    made = create_system(structure, so3lr_toy() if model is None else model, backend=backend, **options)
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
    assert head == ",".join(COLUMNS)
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
    assert file.read_text() == ",".join(COLUMNS) + "\n"


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
    assert So3kReporter(tmp_path / "mixed.csv", 1, mixed).module.coulomb == "kspace"


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
