"""`analyze`: computes all results of one trajectory."""

from pathlib import Path

import numpy as np

from so3k_md.analysis.bonds import by_type, composition, formula, make_whole
from so3k_md.analysis.distributions import (
    Distribution,
    Rdf,
    bond_length_distribution,
    dihedral_distribution,
    element_pairs,
    radial_distribution,
)
from so3k_md.analysis.dynamics import linear_drift, statistical_inefficiency, summarise_temperature
from so3k_md.analysis.geometry import Array, Integers, pair_distances, rmsd, rmsf
from so3k_md.analysis.production import conserves, settle, settled_frame, watch_log
from so3k_md.analysis.results import Analysis, Deviation, Energy, Production, Source, Temperature
from so3k_md.analysis.stability import finite_frames, judge
from so3k_md.analysis.thermo import Thermo, read_log
from so3k_md.analysis.torsions import torsion_kinds, torsions
from so3k_md.analysis.trajectory import Trajectory, load_trajectory
from so3k_md.errors import So3kError
from so3k_md.structure.bonds import trees


def analyze(
    trajectory: str | Path,
    topology: str | Path | None = None,
    log: str | Path | None = None,
    *,
    label: str | None = None,
    timestep_fs: float | None = None,
    frame_interval_ps: float | None = None,
    temperature_K: float | None = None,
    stride: int = 1,
    periodic: bool | None = None,
    from_ps: float | None = None,
) -> Analysis:
    """Analyse one trajectory of OpenMM or LAMMPS.

    Args:
        trajectory: DCD, XTC, HDF5 or LAMMPS dump (xu yu zu, or x y z).
        topology: PDB, mmCIF or other topology; None for an HDF5 trajectory, which has its own.
        log: CSV of OpenMM's StateDataReporter or log of LAMMPS; energies and temperature come from it.
        label: name in the report; the file's name otherwise.
        timestep_fs: time of one step, fs, if the files do not state it.
        frame_interval_ps: time between two frames, ps; it takes precedence over the files.
        temperature_K: temperature of the thermostat, K, to compare with.
        stride: use every stride-th frame.
        periodic: whether all axes are periodic; None to decide by the files.
        from_ps: start of the averages, ps; None for the time from which the log is stationary.

    Raises:
        So3kError: a file cannot be used; the message names it and the remedy.
    """
    given = {"time step": timestep_fs, "frame interval": frame_interval_ps, "temperature": temperature_K}
    for name, value in given.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise So3kError(f"the {name} is {value:g}: give a positive number")
    thermo = None if log is None else read_log(log, timestep_fs)
    known_fs = timestep_fs or (thermo.timestep_fs if thermo else None)
    data = load_trajectory(
        trajectory, topology, timestep_fs=known_fs, frame_interval_ps=frame_interval_ps, stride=stride,
        periodic=periodic, logged_pbc=thermo.pbc if thermo else None,
    )  # fmt: skip
    _, molecules = trees(len(data.numbers), data.bonds)
    source = Source(
        trajectory=str(trajectory),
        topology=str(topology or trajectory),
        log=None if log is None else str(log),
        atoms=len(data.numbers),
        composition=composition(data.symbols, molecules),
        frames=len(data.positions),
        stride=stride,
        time_unit=data.time_unit,
        time_from=data.time_reason,
        first_time=float(data.time[0]),
        last_time=float(data.time[-1]),
        periodic=data.pbc,
        periodic_from=data.pbc_reason,
        bonds=len(data.bonds),
        bonds_from=data.bonds_from,
        notes=data.notes + (thermo.notes if thermo else ()),
    )
    sound = finite_part(data)
    lengths = pair_distances(sound.positions, data.bonds, sound.cells, data.pbc)
    stability = judge(data, lengths)
    production = settle(thermo, data, from_ps)
    first = settled_frame(sound, production)
    settled = sound._replace(
        positions=sound.positions[first:],
        cells=None if sound.cells is None else sound.cells[first:],
        time=sound.time[first:],
    )
    absent: dict[str, str] = {}
    return Analysis(
        label or Path(trajectory).name,
        source,
        watch_log(stability, thermo, len(data.numbers)),
        deviations(sound, molecules, absent),
        bond_distributions(settled, lengths[first:], absent),
        dihedral_distributions(settled, absent),
        radial_distributions(settled, molecules, absent),
        energies(thermo, len(data.numbers), production, absent),
        temperatures(thermo, len(data.numbers), temperature_K, production, absent),
        absent,
        production,
    )


def finite_part(data: Trajectory) -> Trajectory:
    """The frames before the first one with positions or a cell that are not finite."""
    n = finite_frames(data.positions, data.cells)
    cells = None if data.cells is None else data.cells[:n]
    return data._replace(positions=data.positions[:n], cells=cells, time=data.time[:n])


def deviations(data: Trajectory, molecules: Integers, absent: dict[str, str]) -> Deviation | None:
    """RMSD and RMSF of the largest molecule, averaged over all with the same elements in the same order."""
    groups = [np.flatnonzero(molecules == k) for k in range(int(molecules.max(initial=-1)) + 1)]
    largest = max(groups, key=len)
    if len(largest) < 3:
        absent["deviation"] = "no molecule of three or more atoms: displacements would measure diffusion"
        return None
    if len(data.positions) < 2:
        absent["deviation"] = "the trajectory has one frame; a deviation needs two"
        return None
    kind = [data.symbols[atom] for atom in largest]
    equal = [atoms for atoms in groups if [data.symbols[atom] for atom in atoms] == kind]
    parent, _ = trees(len(data.numbers), data.bonds)
    whole = make_whole(data.positions, data.cells, data.pbc, parent)
    square_rmsd = np.mean([rmsd(whole[:, atoms], whole[0, atoms]) ** 2 for atoms in equal], axis=0)
    square_rmsf = np.mean([rmsf(whole[:, atoms]) ** 2 for atoms in equal], axis=0)
    values = np.sqrt(square_rmsd)
    return Deviation(
        molecule=formula(kind),
        molecules=len(equal),
        time=data.time,
        rmsd=values,
        mean=float(values[1:].mean()),
        last=float(values[-1]),
        rmsf=np.sqrt(square_rmsf),
        atoms=tuple(f"{symbol}{k}" for k, symbol in enumerate(kind)),
    )


def bond_distributions(
    data: Trajectory, lengths: Array, absent: dict[str, str]
) -> tuple[Distribution, ...] | None:
    """The distribution of each type of bond."""
    if not len(data.bonds) or not len(data.positions):
        absent["bonds"] = "the system has no covalent bonds" if len(data.positions) else NO_FINITE
        return None
    columns = {tuple(bond): k for k, bond in enumerate(data.bonds.tolist())}
    finite = lengths[: len(data.positions)]
    return tuple(
        bond_length_distribution(kind, finite[:, [columns[tuple(bond)] for bond in group.tolist()]])
        for kind, group in by_type(data.bonds, data.symbols).items()
    )


def dihedral_distributions(data: Trajectory, absent: dict[str, str]) -> tuple[Distribution, ...] | None:
    """The distribution of each type of dihedral."""
    quads = torsions(data.bonds)
    if not len(quads) or not len(data.positions):
        absent["dihedrals"] = "no chain of four bonded atoms" if len(data.positions) else NO_FINITE
        return None
    return tuple(
        dihedral_distribution(kind, data.positions, group, data.cells, data.pbc)
        for kind, group in torsion_kinds(quads, data.bonds, data.symbols, data.names, data.residues).items()
    )


def radial_distributions(
    data: Trajectory, molecules: Integers, absent: dict[str, str]
) -> tuple[Rdf, ...] | None:
    """g(r) of each pair of elements, between molecules where there are several."""
    if data.cells is None or not all(data.pbc):
        absent["rdf"] = f"the system is not periodic in three directions ({data.pbc_reason})"
        return None
    if not len(data.positions):
        absent["rdf"] = NO_FINITE
        return None
    apart = molecules if molecules.max() > 0 else None
    found = [
        radial_distribution(data.positions, data.cells, first, second, apart, kind)
        for kind, first, second in element_pairs(data.symbols)
    ]
    if not any(found):
        absent["rdf"] = "there is no pair of atoms to count"
        return None
    return tuple(rdf for rdf in found if rdf is not None)


def energies(
    thermo: Thermo | None, n_atoms: int, production: Production, absent: dict[str, str]
) -> Energy | None:
    """The drift of the total or conserved energy, and the mean of the potential energy, in the production."""
    reason = None
    if thermo is None:
        reason = "no log was given (--log)"
    elif thermo.conserved is None:
        reason = "the log has no total energy"
    elif thermo.time is None:
        reason = "the log has no time and the time step is unknown (--timestep-fs)"
    elif len(thermo.time) < 3 or np.ptp(thermo.time) == 0:
        reason = "the log has fewer than three rows"
    elif not np.isfinite(thermo.conserved).all():
        reason = "the log holds energies that are not finite numbers"
    if reason or thermo is None or thermo.time is None or thermo.conserved is None:
        absent["energy"] = reason or ""
        return None
    change = (thermo.conserved - thermo.conserved[0]) / n_atoms
    mean = error = None
    rows = slice(production.row, None)
    if thermo.potential is not None and np.isfinite(thermo.potential[rows]).all():
        part = thermo.potential[rows]
        mean = float(part.mean())
        error = float(part.std() * np.sqrt(statistical_inefficiency(part) / len(part)))
    return Energy(
        quantity=thermo.conserved_name,
        rows=thermo.rows,
        time=thermo.time,
        change=change,
        drift=linear_drift(thermo.time[rows], thermo.conserved[rows], n_atoms),
        potential=thermo.potential,
        potential_mean=mean,
        potential_error=error,
        conserved=conserves(thermo, rows),
    )


def temperatures(
    thermo: Thermo | None,
    n_atoms: int,
    target: float | None,
    production: Production,
    absent: dict[str, str],
) -> Temperature | None:
    """Mean and spread of the temperature in the production."""
    if thermo is None:
        absent["temperature"] = "no log was given (--log)"
    elif thermo.temperature is None:
        absent["temperature"] = "the log has no temperature"
    elif not np.isfinite(thermo.temperature).all():
        absent["temperature"] = "the log holds temperatures that are not finite numbers"
    else:
        kinetic = None if thermo.kinetic is None else thermo.kinetic[production.row :]
        kinetic = kinetic if kinetic is not None and np.isfinite(kinetic).all() else None
        summary = summarise_temperature(thermo.temperature[production.row :], n_atoms, kinetic, target)
        return Temperature(thermo.time, thermo.temperature, summary)
    return None


NO_FINITE = "the first frame already holds positions that are not finite numbers"
