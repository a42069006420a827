"""What users get wrong with charges, positions and parts in OpenMM."""

import numpy as np
import openmm
import pytest
from openmm import app, unit
from openmm_doors import context_of, energy_of
from so3lr_toys import so3lr_toy, water_dimer, waters
from toys import toy_model

from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.openmm import add_model, create_system
from so3k_md.engines.openmm.topology import topology_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.units import EV_IN_KJ_MOL


def test_local_models_know_no_charges():
    with pytest.raises(So3kError, match="the model does not use them"):
        create_system(water_dimer(), toy_model(), charge=1)
    charged = water_dimer()
    charged.info["charge"] = 1  # which may stand in a structure for other models
    with pytest.warns(So3kWarning, match="does not use charge and spin"):
        create_system(charged, toy_model())


def charged_dimer():
    """OH- and water."""
    atoms = water_dimer()
    atoms = atoms[[0, 1, 3, 4, 5]]
    atoms.info = {"charge": -1}
    return atoms


def by_openmm(atoms, **options):
    made = create_system(atoms, so3lr_toy(), **options)
    return energy_of(context_of(made.system, made.positions_nm)) / EV_IN_KJ_MOL


def by_ase(atoms, **options):
    atoms = atoms.copy()
    atoms.calc = So3kCalculator(so3lr_toy(), dtype="float64", **options)
    return atoms.get_potential_energy()


@pytest.mark.parametrize("door", [by_openmm, by_ase])
def test_keyword_and_structure_must_not_contradict_each_other(door):
    """The same through both doors: what the structure says is completed by keywords, never replaced."""
    said = charged_dimer()
    silent = said.copy()
    silent.info = {}
    fragments = {"fragments": [0, 0, 1, 1, 1], "fragment_charges": [-1, 0]}
    assert door(said, charge=-1.0) == door(said) == door(silent, charge=-1)
    assert door(said, **fragments) == door(silent, **fragments) != door(said)
    with pytest.raises(So3kError, match=r"its charge is -1, the option charge is 1: correct one"):
        door(said, charge=1)
    with pytest.raises(So3kError, match=r"fragment charges add up to \+1 e, the total charge is -1 e"):
        door(said, fragments=fragments["fragments"], fragment_charges=[1, 0])
    said.info["spin"] = 0
    with pytest.raises(So3kError, match=r"its spin is .*0.*, the option spin is 1: correct one"):
        door(said, spin=1)


def test_atoms_too_close_are_warned_of():
    atoms = water_dimer()
    atoms.positions[3] = atoms.positions[1] + [0.3, 0, 0]
    with pytest.warns(So3kWarning, match=r"atoms [13] and [13] are 0\.30 Å apart, 0\.31 of the sum"):
        create_system(atoms, so3lr_toy())


@pytest.mark.parametrize("owner", ["topology", "System"])
def test_a_contact_through_a_wall_is_called_so(owner):
    for z, wall in (0.7, ""), (7.7, " across the boundary of the cell"):
        topology, system = topology_of(["O", "O"]), openmm.System()
        box = 0.8 * np.eye(3)
        for _ in range(2):
            system.addParticle(16.0)
        if owner == "topology":
            topology.setPeriodicBoxVectors(box)
        else:  # as where a classical force field makes the System periodic
            system.setDefaultPeriodicBoxVectors(*box)
            classical = openmm.NonbondedForce()
            classical.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
            for _ in range(2):
                classical.addParticle(0, 0.1, 0)
            system.addForce(classical)
        with pytest.warns(So3kWarning, match=rf"atoms 0 and 1 are 0\.50 Å apart{wall}, 0\.38 of the sum"):
            add_model(system, topology, toy_model(), positions_nm=[[0, 0, 0.02], [0, 0, z / 10]])


def test_a_residue_in_pieces_has_no_charge():
    """OpenMM makes no bonds for sulfate without CONECT records."""
    topology = app.Topology()
    chain = topology.addChain()
    sulfate, water = topology.addResidue("SO4", chain), topology.addResidue("HOH", chain)
    for symbol in "COOOO":
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), sulfate)
    o, *h = (topology.addAtom(symbol, app.Element.getBySymbol(symbol), water) for symbol in "OHH")
    for hydrogen in h:
        topology.addBond(o, hydrogen)
    with pytest.raises(So3kError, match="5 atoms of residue SO4 1 have no bonds"):
        create_system(topology, so3lr_toy(), fragments="molecules", fragment_charges={"SO4": -2})


def test_the_topology_of_the_user_is_left_as_it_is():
    topology = topology_of(water_dimer())
    create_system(topology, so3lr_toy(), box_nm=3.0 * np.eye(3))
    assert topology.getPeriodicBoxVectors() is None


def test_positions_have_units_and_a_shape():
    topology, system = topology_of(water_dimer()), openmm.System()
    for _ in range(6):
        system.addParticle(1.0)
    near = water_dimer().positions
    near[3] = near[1] + [0.3, 0, 0]
    with pytest.warns(So3kWarning, match=r"0\.30 Å apart"):
        add_model(system, topology, so3lr_toy(), positions_nm=near * unit.angstrom)
    with pytest.raises(So3kError, match=r"positions_nm has shape \(5, 3\): give those of all 6 atoms"):
        add_model(system, topology, so3lr_toy(), positions_nm=near[:5])


def test_a_part_of_a_box_must_know_its_images():
    atoms = waters(3)
    made = create_system(atoms, so3lr_toy(), atoms=range(len(atoms) - 3))
    with pytest.raises(openmm.OpenMMException, match="span more than half of the box"):
        energy_of(context_of(made.system, made.positions_nm))
