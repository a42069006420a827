"""Boxes, bonds and boundaries of what users hand to OpenMM."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import molecule
from openmm import app, unit
from openmm_doors import context_of, energy_of
from openmmml import MLPotential
from toys import save_toy, toy_model

from so3k_md.analysis.trajectory import load_trajectory
from so3k_md.engines.openmm import add_model, create_system
from so3k_md.engines.openmm.boundary import cut_bonds, link_atoms
from so3k_md.engines.openmm.topology import nm_positions, topology_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.bonds import guess_bonds

ETHANOL = molecule("CH3CH2OH")
METHYL = [0, 6, 7, 8]  # a carbon and its hydrogens: the C–C bond is cut


def modeller(atoms, bonds=True):
    topology = topology_of(atoms if bonds else atoms.get_chemical_symbols())
    return app.Modeller(topology, nm_positions(atoms) * unit.nanometer)


def test_a_part_that_cuts_bonds_is_refused(tmp_path):
    topology = topology_of(ETHANOL)
    (cut,) = cut_bonds(topology, METHYL)
    assert {cut.inside.index, cut.outside.index} == {0, 1}
    words = r"1 bond\(s\).*C1 of MOL 1 \(atom 0\) and C2 of MOL 1 \(atom 1\)"
    with pytest.raises(So3kError, match=words):
        create_system(topology, toy_model(), atoms=METHYL)
    made = create_system(topology, toy_model(), atoms=METHYL, allow_cut_bonds=True)
    potential = MLPotential("so3k", model=save_toy(tmp_path / "toy.pt"))
    with pytest.raises(So3kError, match=words):
        potential.createMixedSystem(topology, made.system, METHYL)


def test_link_atoms_of_openmm_ml_close_the_boundary():
    """As openmm-ml 1.8 hands them over: appended hydrogens V0, V1, … in residues of that name, unbonded."""
    topology = topology_of(ETHANOL)
    assert link_atoms(topology, METHYL, 1) == []
    chain = topology.addChain()
    topology.addAtom("V0", app.element.hydrogen, topology.addResidue("V0", chain))
    described = [*METHYL, 9]
    assert [atom.index for atom in link_atoms(topology, described, 1)] == [9]
    system = openmm.System()  # empty, as where openmm-ml interpolates
    add_model(system, topology, toy_model(), atoms=described, positions_nm=nm_positions(ETHANOL))
    (bonds,) = (force for force in system.getForces() if force.getName() == "Molecules")
    pairs = {tuple(sorted(bonds.getBondParameters(k)[:2])) for k in range(bonds.getNumBonds())}
    assert (0, 9) in pairs
    assert topology.getNumBonds() == 8  # that of the caller is left as it is


@pytest.mark.skipif("SO3K_OPENMMML" not in os.environ, reason="SO3K_OPENMMML names no openmm-ml 1.8")
def test_openmm_ml_1_8_mixes_and_caps(tmp_path):
    """SO3K_OPENMMML is a folder with openmmml 1.8 (pip install --no-deps --target)."""
    path = os.pathsep.join([os.environ["SO3K_OPENMMML"], os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("openmmml_links.py"), save_toy(tmp_path / "toy.pt")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.8", "10", "True", "True"]


def test_the_dummy_cell_of_pdb_files_is_no_box():
    given = modeller(ETHANOL)
    given.topology.setPeriodicBoxVectors(0.1 * np.eye(3) * unit.nanometer)
    with pytest.warns(So3kWarning, match="PDB files contain if there is no cell"):
        made = create_system(given, toy_model())
    assert made.topology.getPeriodicBoxVectors() is None
    assert not made.system.usesPeriodicBoundaryConditions()
    whole = energy_of(context_of(made.system, made.positions_nm))
    alone = create_system(ETHANOL, toy_model())
    assert whole == pytest.approx(energy_of(context_of(alone.system, alone.positions_nm)), rel=1e-12)
    boxed = ETHANOL.copy()
    boxed.set_cell(np.eye(3))
    boxed.pbc = True
    with pytest.warns(So3kWarning, match="there is no cell"):
        assert create_system(boxed, toy_model()).topology.getNumBonds() == 8


@pytest.mark.parametrize("box_nm", [0.15, 0.2])
def test_boxes_that_cannot_be_are_refused(box_nm):
    with pytest.raises(So3kError, match="the cell of box_nm .*: set the right one"):
        create_system(modeller(ETHANOL), toy_model(), box_nm=box_nm * np.eye(3))


def test_a_box_of_the_system_that_nothing_uses_is_warned_of():
    topology = topology_of(ETHANOL)
    system = create_system(topology, toy_model()).system
    system.removeForce(0)
    system.setDefaultPeriodicBoxVectors(*(3.0 * np.eye(3)))
    with pytest.warns(So3kWarning, match=r"box, \[30.0, 30.0, 30.0\] Å, but neither"):
        add_model(system, topology, toy_model())


def test_an_ion_is_no_part_of_its_water_to_engines_and_analysis(tmp_path):
    atoms = Atoms("NaOHH", [[0, 0, 0], [2.35, 0, 0], [2.94, 0.76, 0], [2.94, -0.76, 0]])
    atoms.write(tmp_path / "ion.xyz")
    seen = load_trajectory(tmp_path / "ion.xyz").bonds
    made = topology_of(atoms)
    assert [[a.index, b.index] for a, b in made.bonds()] == seen.tolist() == [[1, 2], [1, 3]]
    assert [len(list(residue.atoms())) for residue in made.residues()] == [1, 3]


def test_bonds_that_a_ligand_lacks_are_guessed_where_positions_are_known():
    bare = modeller(ETHANOL, bonds=False)
    assert bare.topology.getNumBonds() == 0
    made = create_system(bare, toy_model())
    assert {tuple(sorted((a.index, b.index))) for a, b in made.topology.bonds()} == set(
        map(tuple, guess_bonds(ETHANOL.numbers, ETHANOL.positions).bonds.tolist())
    )
    given = create_system(bare.topology, toy_model(), positions_nm=bare.positions)
    assert given.topology.getNumBonds() == 8
    assert bare.topology.getNumBonds() == 0
    bare.topology.setPeriodicBoxVectors(2.0 * np.eye(3) * unit.nanometer)
    with pytest.warns(So3kWarning, match="9 atoms of residue MOL 1 have no bonds"):
        create_system(bare.topology, toy_model())
