"""OpenMM Systems whose forces come from a So3krates model, by TorchForce or PythonForce."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from openmm import app
from torch import nn

from so3k_md.checkpoint import metadata
from so3k_md.data.references import warn_incomparable
from so3k_md.engines.openmm.backend import Backend, best_platform, choose_backend, make_force
from so3k_md.engines.openmm.boundary import boundary_of, with_links
from so3k_md.engines.openmm.charges import charge_state_of, describe_physics, named_charge_state, one_cluster
from so3k_md.engines.openmm.groups import bonds_among, describe, linked_groups
from so3k_md.engines.openmm.input import cell_of, plain_nm, refuse_bare, structure_of, warn_of_bare
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.topology import warn_of_close
from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB, CUTOFF_LR
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.choose import fitting_model, kernels_for
from so3k_md.needs import needs_of
from so3k_md.structure.charges import GivenChargeState
from so3k_md.structure.groups import MAX_GROUP
from so3k_md.structure.lists import SKIN
from so3k_md.units import NM_IN_ANGSTROM

log = logging.getLogger(__name__)


class ModelSystem(NamedTuple):
    """System, topology and positions, from which a Simulation is built."""

    topology: app.Topology
    system: openmm.System
    positions_nm: NDArray[np.float64] | None  # (atoms, 3); None if the structure had no positions
    backend: Backend

    @property
    def platform(self) -> openmm.Platform:
        """The platform to pass to a Context or Simulation; see `best_platform`."""
        return best_platform(self.backend.name)


def create_system(
    structure: Any,
    model: str | Path | nn.Module,
    *,
    backend: str = "auto",
    box_nm: ArrayLike | None = None,
    masses_amu: Sequence[float] | None = None,
    keep_molecules: bool = True,
    **options: Any,
) -> ModelSystem:
    """A System in which all forces come from the model.

    Args:
        structure: a topology; an object with a topology and positions, such as `app.PDBFile` or
            `app.Modeller`; ASE atoms, whose array `group`, if present, gives the groups of a non-local model,
            and whose charge, spin and fragments are read as by the ASE calculator; or elements. If positions
            are known, missing bonds of residues are guessed; see `structure.bonds`.
        model: a checkpoint, an exported file, the name of a bundled model, or a model.
        backend: torchforce, pythonforce, or auto for the first that works here.
        box_nm: periodic box vectors in OpenMM's reduced form (3, 3), nm; by default those of the structure.
        masses_amu: of each atom, if they are not the natural masses.
        keep_molecules: add bonds with zero force constant, so that barostats and trajectories keep molecules
            whole.
        **options: of `add_model`.

    Raises:
        So3kError: an unusable structure, model or backend.
    """
    topology, positions_nm = structure_of(structure, options.pop("positions_nm", None), box_nm)
    system = openmm.System()
    for mass in particle_masses(topology, masses_amu):
        system.addParticle(mass)
    if topology.getPeriodicBoxVectors() is not None:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    device = options.get("device", "cpu")
    wanted = kernels_for(options.get("kernels", "auto"), device)
    loaded = fitting_model(model, "cpu", options.pop("dtype", None), wanted, runs_on=device)
    if isinstance(structure, Atoms):
        options = named_charge_state(structure, needs_of(loaded), named_groups(structure, options))
    used = add_model(
        system,
        topology,
        loaded,
        backend=backend,
        keep_molecules=keep_molecules,
        positions_nm=positions_nm,
        **options,
    )
    return ModelSystem(topology, system, positions_nm, used)


def add_model(
    system: openmm.System,
    topology: app.Topology,
    model: str | Path | nn.Module,
    *,
    atoms: Sequence[int] | None = None,
    backend: str = "auto",
    dtype: torch.dtype | str | None = None,
    device: str = "cpu",
    skin: float = SKIN,
    force_group: int = 0,
    keep_molecules: bool = True,
    groups: str | ArrayLike = "auto",
    max_group: int = MAX_GROUP,
    positions_nm: ArrayLike | None = None,
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
    charge: float | None = None,
    spin: float | None = None,
    fragments: str | ArrayLike | None = None,
    fragment_charges: ArrayLike | Mapping[Any, float] | None = None,
    kernels: str = "auto",
    allow_cut_bonds: bool = False,
) -> Backend:
    """Add a model's forces on all atoms or some of them to a System; logs how.

    Args:
        system: changed in place.
        topology: of the System; the model is periodic if it has a box.
        model: a checkpoint, an exported file, the name of a bundled model, or a model.
        atoms: indices of the atoms that the model describes; all by default.
        backend: torchforce, pythonforce, or auto for the first that works here.
        dtype: precision of the model, float32 or float64; None keeps the model's.
        device: device on which a PythonForce evaluates the model. A TorchForce uses that of the platform;
            name it here too, so that the kernels are those of that device.
        skin: of the neighbor list, Å.
        force_group: of the new forces.
        keep_molecules: add bonds with zero force constant, so that barostats and trajectories keep molecules
            whole.
        groups: of non-local attention. auto: the molecules of these atoms by the bonds of the topology (one
            group for an open system without bonds). all: one group, in the given images. Or a whole number
            for each of these atoms.
        max_group: largest group that an sphc model accepts, because time grows with the square of the group.
        positions_nm: of all atoms of the topology, (n, 3), nm; used to link, in a periodic box, groups that
            bonds do not connect, and to warn of atoms too close to each other.
        coulomb: for models with electrostatics. kspace: the exact sum, over the lattice of a periodic box or
            over all pairs of an open system; for some atoms of a box over the pairs of these atoms in their
            nearest images, because the classical force field sums over the lattice. shifted: cut off at
            `cutoff_lr` as in the reference codes. shifted+self: the same, plus the energy of each charge in
            its own potential.
        cutoff_lr: of dispersion and of the shifted forms, Å.
        charge: total charge of these atoms, e; by default the sum of `fragment_charges`, or 0.
        spin: S of these atoms, 0 for a singlet.
        fragments: no charge flows between them. None: one fragment. molecules: the molecules of these atoms
            by the bonds of the topology. Or a whole number for each of these atoms.
        fragment_charges: e, one for each fragment in rising order of its number, or by its number; for
            molecules also by the names of residues; residues that are not named are neutral.
        kernels: use of compiled kernels. auto: if they are built, but not with device = cpu where there is
            a GPU on which a TorchForce might run; on; or off, for a System that a process without kernels
            reads.
        allow_cut_bonds: accept bonds of which the model describes one atom; the caller has capped them.

    Raises:
        So3kError: an unusable topology, box, model, backend or group; cut bonds; impossible charges.
    """
    used = choose_backend(backend)
    rows = list(range(topology.getNumAtoms())) if atoms is None else [int(atom) for atom in atoms]
    boundary = boundary_of(topology, rows, allow_cut_bonds)
    if positions_nm is not None:
        positions_nm = with_links(plain_nm(positions_nm), boundary)
    topology, positions_nm = structure_of(boundary.topology, positions_nm, None)
    numbers = atomic_numbers(topology, rows)
    wanted = kernels_for(kernels, device)
    loaded = fitting_model(model, "cpu", dtype, wanted, runs_on=device)
    warn_incomparable(numbers, metadata(loaded))
    needs = needs_of(loaded)
    cell = cell_of(system, topology)
    periodic = cell is not None
    molecular = bool(needs.nonlocal_kind != "none" and isinstance(groups, str) and groups == "auto")
    if positions_nm is None:  # otherwise atoms without bonds after the guess are single atoms, such as ions
        refuse_bare(topology, rows, molecular, isinstance(fragments, str))
    # openmm-ml passes an empty System when it interpolates
    n_particles = max(system.getNumParticles(), topology.getNumAtoms())
    linked = None
    if needs.nonlocal_kind != "none":
        positions = None if positions_nm is None else positions_nm * NM_IN_ANGSTROM
        linked = linked_groups(needs, topology, rows, groups, max_group, cell, positions)
    charge_state = charge_state_of(
        needs, topology, rows, numbers, GivenChargeState(charge, spin, fragments, fragment_charges)
    )
    part = periodic and len(rows) < n_particles and coulomb == "kspace" and needs.has_long_range
    if positions_nm is not None:
        warn_of_close(topology, positions_nm, cell, rows)
    elif periodic and keep_molecules:
        warn_of_bare(topology, rows)
    module = script_for_openmm(
        loaded,
        numbers,
        rows,
        n_particles,
        periodic,
        skin,
        **({} if linked is None else linked._asdict()),
        charge_state=charge_state,
        coulomb=coulomb,
        cutoff_lr=cutoff_lr,
        cluster=one_cluster(topology, rows) if part else None,
        bonded=np.unique(bonds_among(topology, rows)),
        shared=wanted != "off" and device == "cpu" and load_kernels(),  # a shared model cannot be moved
    )
    force = make_force(module, used.name, device)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setForceGroup(force_group)
    force.setName("So3krates")
    system.addForce(force)
    if keep_molecules and (bonds := zero_bonds(topology, set(rows))).getNumBonds():
        bonds.setForceGroup(force_group)
        system.addForce(bonds)
    log.info("OpenMM calls the model by %s: %s", used.name, used.reason)
    if linked:
        log.info("%s", describe(needs.nonlocal_kind, linked.group))
    if needs.has_long_range:
        reach = "nearest images of these atoms" if part else "the lattice" if periodic else "all pairs"
        log.info("%s", describe_physics(needs, coulomb, cutoff_lr, charge_state, reach))
    return used


def named_groups(atoms: Atoms, options: dict[str, Any]) -> dict[str, Any]:
    """The options of `add_model`, in which the array `group` of the atoms replaces groups="auto"."""
    named, wanted = atoms.arrays.get("group"), options.get("groups", "auto")
    if named is None or not isinstance(wanted, str) or wanted != "auto":
        return options
    rows = options.get("atoms")
    # add_model refuses rows that do not exist
    return options | {"groups": named if rows is None else np.take(named, rows, mode="clip")}


def zero_bonds(topology: app.Topology, atoms: set[int]) -> openmm.HarmonicBondForce:
    """Bonds with zero force constant between the atoms, from which OpenMM derives its molecules."""
    force = openmm.HarmonicBondForce()
    force.setName("Molecules")
    for first, second in topology.bonds():
        if first.index in atoms and second.index in atoms:
            force.addBond(first.index, second.index, 0.1, 0.0)
    return force


def atomic_numbers(topology: app.Topology, rows: Sequence[int]) -> list[int]:
    """Atomic numbers of some atoms of a topology."""
    atoms = sorted(topology.atoms(), key=lambda atom: atom.index)
    numbers = []
    for row in rows:
        if not 0 <= row < len(atoms):
            raise So3kError(
                f"atoms names atom {row}, but the topology has {len(atoms)} atoms, from 0: correct the list "
                "of atoms"
            )
        if atoms[row].element is None:
            raise So3kError(
                f"atom {row} ({atoms[row].name}) has no element: the model describes real atoms only"
            )
        numbers.append(int(atoms[row].element.atomic_number))
    return numbers


def particle_masses(topology: app.Topology, masses_amu: Sequence[float] | None) -> list[float]:
    """The given masses, or those of the elements, amu."""
    if masses_amu is None:
        return [atom.element.mass._value if atom.element else 0.0 for atom in topology.atoms()]
    if len(masses_amu) != topology.getNumAtoms():
        raise So3kError(f"{len(masses_amu)} masses for {topology.getNumAtoms()} atoms: give one for each")
    return [float(mass) for mass in masses_amu]
