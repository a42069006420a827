"""Ways into OpenMM that its tests share."""

import numpy as np
import openmm
from openmm import unit

from so3k_md.units import NM_IN_ANGSTROM

BACKENDS = ("torchforce", "pythonforce")
PLATFORMS = ("Reference", "CPU")
KJ_MOL, KJ_MOL_NM = unit.kilojoule_per_mole, unit.kilojoule_per_mole / unit.nanometer


def context_of(system, positions_nm, platform="Reference"):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions_nm)
    return context


def energy_of(context):
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(KJ_MOL)


def forces_of(context):
    return context.getState(forces=True).getForces(asNumpy=True).value_in_unit(KJ_MOL_NM)


def as_openmm_sees(atoms, made):
    """The structure in the box that OpenMM uses: turned, and with reduced lattice vectors."""
    turned = atoms.copy()
    turned.positions = made.positions_nm * NM_IN_ANGSTROM
    if atoms.pbc.any():
        turned.cell = np.array(made.topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom))
    return turned
