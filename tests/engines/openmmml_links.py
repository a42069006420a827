"""For openmm-ml 1.8: a model, whose file is the argument, describes a methyl group capped by a link atom."""

import sys
from importlib.metadata import version

import torch  # noqa: F401  before openmm
from ase.build import molecule

# isort: split
import numpy as np
import openmm
from openmm import unit
from openmmml import MLPotential

from so3k_md.engines.openmm.topology import nm_positions, topology_of

PART = [0, 6, 7, 8]
atoms = molecule("CH3CH2OH")
topology, classical = topology_of(atoms), openmm.System()
for mass in atoms.get_masses():
    classical.addParticle(mass)
potential = MLPotential("so3k", model=sys.argv[1])
energies = []
for interpolate in (False, True):
    made = potential.createMixedSystem(topology, classical, PART, interpolate=interpolate, returnInfo=True)
    system = made["system"]
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
    )
    points = np.concatenate([nm_positions(atoms), np.zeros((1, 3))])
    context.setPositions(points * unit.nanometer)
    context.computeVirtualSites()
    energies.append(context.getState(energy=True).getPotentialEnergy()._value)
forces = context.getState(forces=True).getForces(asNumpy=True)._value[:9]
print(
    version("openmmml"),
    system.getNumParticles(),
    bool(abs(energies[0] - energies[1]) < 1e-6),
    bool(np.abs(forces.sum(0)).max() < 1e-6 and np.abs(forces[1]).max() > 1),  # the cap pulls at its bond
)
