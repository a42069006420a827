"""Charges, dispersion and repulsion in OpenMM: as by the ASE calculator, in a box and in parts."""

import importlib.util

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from openmm_doors import BACKENDS, PLATFORMS, as_openmm_sees, context_of, energy_of, forces_of
from so3lr_toys import STRUCTURES, ammonium, by_ase, ions, so3lr_toy, water_dimer, waters
from toys import toy_model

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.topology import topology_of
from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB
from so3k_md.kernels.build import load_kernels
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

MOLECULES, PAIR = {"fragments": "molecules"}, [0] * 9 + [1] * 9
FORCE_UNIT = EV_IN_KJ_MOL * NM_IN_ANGSTROM


def assert_as_ase(context, atoms, model=None, **options):
    expected = by_ase(atoms, model, **options)
    assert energy_of(context) == pytest.approx(expected["energy"] * EV_IN_KJ_MOL, rel=1e-9)
    np.testing.assert_allclose(forces_of(context) / FORCE_UNIT, expected["forces"], atol=1e-8)


@pytest.mark.parametrize("coulomb", COULOMB)
@pytest.mark.parametrize("name", STRUCTURES)
def test_equals_ase(name, coulomb):
    atoms, options = STRUCTURES[name](), {"coulomb": coulomb, "cutoff_lr": 8.0}
    for backend, platform in zip(BACKENDS, PLATFORMS, strict=True):
        made = create_system(atoms, so3lr_toy(), backend=backend, **options)
        context = context_of(made.system, made.positions_nm, platform)
        assert_as_ase(context, as_openmm_sees(atoms, made), **options)


def test_forms_differ_and_parts_are_lively():
    atoms = waters()
    energies = [by_ase(atoms, coulomb=coulomb)["energy"] for coulomb in COULOMB]
    assert np.abs(np.subtract.outer(energies, energies)[np.triu_indices(3, 1)]).min() > 1e-3
    found = by_ase(atoms)
    assert min(abs(part) for part in found["energy_parts"].values()) > 1e-3
    assert np.ptp(found["charges"]) > 0.1


@pytest.mark.parametrize("name", ["ions", "triclinic"])
def test_forces_are_the_derivative_of_the_energy(name):
    made = create_system(STRUCTURES[name](), so3lr_toy(), cutoff_lr=8.0)
    context = context_of(made.system, made.positions_nm)
    forces, step = forces_of(context), 1e-5
    for k in range(0, len(forces), 3):
        energies = []
        for sign in (1, -1):
            moved = made.positions_nm.copy()
            moved[k, k % 3] += sign * step
            context.setPositions(moved)
            energies.append(energy_of(context))
        numerical = -(energies[0] - energies[1]) / (2 * step)
        assert forces[k, k % 3] == pytest.approx(numerical, abs=2e-6 * np.abs(forces).max())


@pytest.mark.parametrize(("backend", "coulomb"), [*zip(BACKENDS, ("kspace", "shifted"), strict=True)])
def test_equals_ase_along_constant_pressure(backend, coulomb):
    atoms, options = waters(), {"coulomb": coulomb, "cutoff_lr": 6.0}
    made = create_system(atoms, so3lr_toy(), backend=backend, **options)
    made.system.addForce(openmm.MonteCarloBarostat(3000, 300, 2))
    context = context_of(made.system, made.positions_nm)
    context.setVelocitiesToTemperature(300, 2)
    volumes = set()
    for _ in range(6):
        context.getIntegrator().step(4)
        state = context.getState(positions=True)
        volumes.add(state.getPeriodicBoxVolume()._value)
        now = atoms.copy()
        now.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        now.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        assert_as_ase(context, now, **options)
    assert len(volumes) > 2
    assert np.isfinite(list(volumes)).all()


def test_lattice_vectors_change_nothing():
    atoms = waters(2, triclinic=True)
    made = create_system(atoms, so3lr_toy())
    context = context_of(made.system, made.positions_nm)
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    energy, forces = energy_of(context), forces_of(context)
    images = np.random.default_rng(0).integers(-9, 10, made.positions_nm.shape)
    context.setPositions(made.positions_nm + images @ box)
    assert energy_of(context) == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(forces_of(context), forces, atol=1e-9 * np.abs(forces).max())


def named_ions():
    """Topology of the ions in which residues have the names of molecules."""
    topology = topology_of(ions())
    for residue, name in zip(topology.residues(), ["AMM", "FMT", "HOH", "HOH", "HOH"], strict=True):
        residue.name = name
    return topology


def test_ways_to_say_the_same_fragments():
    atoms = ions()
    positions_nm = atoms.positions / NM_IN_ANGSTROM
    molecule = np.repeat(range(5), [5, 4, 3, 3, 3])
    apart = atoms.copy()
    apart.arrays["fragment"] = molecule
    apart.info["fragment_charges"] = [1, -1, 0, 0, 0]
    silent = atoms.copy()
    silent.info = {}
    del silent.arrays["fragment"]
    ways = [
        (apart, {}),
        (named_ions(), {"fragments": "molecules", "fragment_charges": {"AMM": 1, "FMT": -1}}),
        (named_ions(), {"fragments": "molecules", "fragment_charges": [1, -1, 0, 0, 0], "charge": 0}),
        (silent, {"fragments": 3 * molecule, "fragment_charges": {0: 1, 3: -1, 6: 0, 9: 0, 12: 0}}),
    ]
    expected = by_ase(apart)["energy"]
    for structure, options in ways:
        context = context_of(create_system(structure, so3lr_toy(), **options).system, positions_nm)
        assert energy_of(context) / EV_IN_KJ_MOL == pytest.approx(expected, rel=1e-12)
    whole = create_system(named_ions(), so3lr_toy()).system
    assert abs(energy_of(context_of(whole, positions_nm)) / EV_IN_KJ_MOL - expected) > 1e-3


def test_fragments_of_some_atoms():
    atoms, rows = ions(), [13, 12, 14, *range(5)]
    made = create_system(atoms, so3lr_toy(), atoms=rows)
    part = atoms[rows]
    part.info["fragment_charges"] = [0, 1]  # in rising order of 4 and 7
    expected = by_ase(part)
    context = context_of(made.system, made.positions_nm)
    assert energy_of(context) == pytest.approx(expected["energy"] * EV_IN_KJ_MOL, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_charges_of_a_part_of_a_box_see_no_images(backend):
    atoms = ammonium() + waters(2)[:6]
    atoms.set_cell([14.0, 15.0, 16.0])
    atoms.pbc = True
    atoms.positions[5:] += [3.0, 3.0, 3.0]
    topology = topology_of(atoms)
    rows = [*range(5), 8, 9, 10]
    options = {"backend": backend, "atoms": rows, "charge": 1, "cutoff_lr": 5.0}
    made = create_system(topology, so3lr_toy(), **options)
    alone = atoms[rows]
    alone.pbc = False
    alone.info["charge"] = 1
    expected = by_ase(alone, cutoff_lr=5.0)
    images = np.random.default_rng(4).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    for moved in (atoms.positions, atoms.positions + images):
        context = context_of(made.system, moved / NM_IN_ANGSTROM)
        assert energy_of(context) == pytest.approx(expected["energy"] * EV_IN_KJ_MOL, rel=1e-9)
        np.testing.assert_allclose(forces_of(context)[rows] / FORCE_UNIT, expected["forces"], atol=1e-8)


def test_local_models_search_no_long_pairs():
    assert script_for_openmm(toy_model(), [8, 1, 1]).seen.lists.long is None
    assert script_for_openmm(so3lr_toy(), [8, 1, 1]).seen.lists.long is not None


def test_cutoff_beyond_an_open_molecule_costs_no_search():
    made = create_system(water_dimer(), so3lr_toy(), coulomb="shifted", cutoff_lr=1000.0)
    assert_as_ase(context_of(made.system, made.positions_nm), water_dimer(), coulomb="shifted", cutoff_lr=1e3)


def test_freezing_changes_nothing():
    atoms = waters()
    positions, box = torch.tensor(atoms.positions / 10), torch.tensor(atoms.cell.array / 10)
    for coulomb in COULOMB:
        given = {"periodic": True, "coulomb": coulomb, "cutoff_lr": 6.0}
        module = script_for_openmm(so3lr_toy(), atoms.numbers.tolist(), **given)
        frozen = torch.jit.freeze(script_for_openmm(so3lr_toy(), atoms.numbers.tolist(), **given))
        torch.testing.assert_close(module(positions, box), frozen(positions, box), rtol=1e-12, atol=1e-9)


@pytest.mark.skipif(not load_kernels(), reason="the kernels are not built")
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_kernels_change_nothing(backend):
    atoms = waters(2, triclinic=True)
    made = create_system(atoms, so3lr_toy(), backend=backend, kernels="on")
    context = context_of(made.system, made.positions_nm)
    expected = by_ase(as_openmm_sees(atoms, made), kernels="off")
    assert energy_of(context) == pytest.approx(expected["energy"] * EV_IN_KJ_MOL, rel=1e-9)
    forces = forces_of(context)
    np.testing.assert_allclose(forces / FORCE_UNIT, expected["forces"], atol=1e-7)
    read = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(made.system))
    assert np.array_equal(forces_of(context_of(read, made.positions_nm)), forces)


def test_what_is_computed_is_said(caplog):
    caplog.set_level("INFO", "so3k_md")
    create_system(ions(), so3lr_toy())
    line = "coulomb: kspace, over all pairs; dispersion to 12 Å; total charge +0 e in 3 fragments (2 charged)"
    assert f"{line}; energies do not contain the energy shift, -10 eV per atom" in caplog.text
    create_system(waters(), so3lr_toy())
    assert "coulomb: kspace, over the lattice; dispersion to 12 Å; total charge +0 e in one" in caplog.text
    create_system(ammonium(), so3lr_toy(), coulomb="shifted", cutoff_lr=9.0)
    assert "coulomb: shifted, to 9 Å; dispersion to 9 Å; total charge +1 e in one fragment" in caplog.text


@pytest.mark.parametrize(
    ("structure", "options", "message"),
    [
        (topology_of(ammonium()), {}, "11 electrons cannot have 0 unpaired"),
        (topology_of(ammonium()), {"charge": 0.5}, "not a whole number"),
        (ammonium(), {"charge": 1, "spin": 1}, "singlets only"),
        (topology_of(ions()), MOLECULES, r"atom 0 \(residue MOL\) would have 11 electrons"),
        (
            named_ions(),
            {"fragments": "molecules", "fragment_charges": {"NH4": 1}},
            "residues are AMM, FMT, HOH",
        ),
        (named_ions(), {"fragments": "residues"}, "give molecules, or a number"),
        (["N", "H", "H", "H"], MOLECULES, "the topology has no bonds"),
        (named_ions(), {"fragments": PAIR}, "no fragment_charges"),
        (
            named_ions(),
            {"fragments": [0] * 9 + [1] * 9, "fragment_charges": {0: 0}},
            "fragment 1 has no charge",
        ),
        (named_ions(), {"fragments": [0] * 9, "fragment_charges": [0]}, "one whole number per atom"),
        (named_ions(), {"fragment_charges": [0]}, "but no fragment"),
        (["Cl", "H"], {}, "atom 0 is Cl, the model knows only H, C, N, O"),
        (water_dimer(), {"coulomb": "ewald"}, "choose one of kspace"),
        (water_dimer(), {"kernels": "fast"}, "choose auto, on or off"),
        (water_dimer(), {"cutoff_lr": 0.0}, "cutoff_lr"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(structure, options, message):
    with pytest.raises(So3kError, match=message) as error:
        create_system(structure, so3lr_toy(), **options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    importlib.util.find_spec("so3krates_torch") is None,
    reason="the published weights come with the package so3krates-torch",
)
@pytest.mark.parametrize(("name", "backend"), [*zip(["dimer", "periodic"], BACKENDS, strict=True)])
def test_published_weights(name, backend):
    from so3k_md.convert.so3lr import build, convert

    model = build(convert(), dtype=torch.float64)
    atoms = STRUCTURES[name]()
    made = create_system(atoms, model, backend=backend)
    assert_as_ase(context_of(made.system, made.positions_nm), as_openmm_sees(atoms, made), model)
