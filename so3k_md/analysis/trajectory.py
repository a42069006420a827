"""Reads a trajectory: its complete frames, with their time axis, periodic axes and bonds."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.bonds import lacks_bonds
from so3k_md.analysis.formats.dcd import read_dcd
from so3k_md.analysis.formats.dump import is_dump, read_dump
from so3k_md.analysis.formats.frames import Frames, kind_of
from so3k_md.analysis.formats.isolated import read_isolated
from so3k_md.analysis.formats.plain import read_pdb, read_xyz
from so3k_md.analysis.geometry import Array, Flags, Integers, sound_frames
from so3k_md.analysis.periodicity import Periodicity, judged, stated
from so3k_md.analysis.times import rising_axis, superseded
from so3k_md.analysis.topology import HDF5, Topology, existing, load_topology, real_atoms, select
from so3k_md.errors import So3kError
from so3k_md.structure.bonds import guess_bonds

TRAJECTORIES = ".dcd, .xtc, .h5, .hdf5, .pdb, .xyz, .extxyz or a LAMMPS `dump custom`"
READERS: dict[str, Callable[[Path, int], Frames]] = {
    ".dcd": read_dcd,
    ".xtc": lambda path, stride: read_isolated(path, "xtc", stride),
    ".pdb": read_pdb,
    ".xyz": read_xyz,
    ".extxyz": read_xyz,
} | {suffix: lambda path, stride: read_isolated(path, "hdf5", stride) for suffix in HDF5}
NETCDF = (".nc", ".netcdf", ".ncdf")
COMPRESSIBLE = (".pdb", ".xyz", ".extxyz")  # kinds that may be compressed


class Trajectory(NamedTuple):
    """Positions over time, and the bond graph."""

    positions: Array  # (frames, atoms, 3), Å
    cells: Array | None  # (frames, 3, 3), rows are the cell vectors, Å
    pbc: tuple[bool, bool, bool]
    pbc_reason: str
    time: Array  # (frames,), in time_unit
    time_unit: str  # "ps", or "frame" where no time is known
    time_reason: str
    steps: Integers | None  # (frames,) of the engine, or None
    numbers: Integers  # (atoms,) atomic numbers
    symbols: tuple[str, ...]
    bonds: Integers  # (bonds, 2)
    bonds_from: str
    labels: tuple[str, ...]  # (atoms,): element and number in the topology, from 0
    names: tuple[str, ...]  # (atoms,): as in the topology
    residues: Integers  # (atoms,)
    notes: tuple[str, ...] = ()  # remarks for the reader, one sentence each


def load_trajectory(
    path: str | Path,
    topology: str | Path | None = None,
    *,
    timestep_fs: float | None = None,
    frame_interval_ps: float | None = None,
    stride: int = 1,
    periodic: bool | None = None,
    logged_pbc: tuple[bool, bool, bool] | None = None,
) -> Trajectory:
    """Read every stride-th complete frame of a trajectory; `notes` of the result name what is left out.

    Virtual sites and Drude particles are left out, because they are not atoms.

    Args:
        path: DCD, XTC, HDF5, PDB, XYZ or LAMMPS dump (xu yu zu, or x y z).
        topology: PDB, mmCIF, HDF5 or any other topology that mdtraj reads; HDF5, PDB and XYZ need none.
        timestep_fs: time step of the engine, fs, for the times of DCD and dump files, which hold steps.
        frame_interval_ps: time between two frames of the file, ps; it takes precedence over other sources.
        stride: use every stride-th frame.
        periodic: whether all axes are periodic; None to decide by the files.
        logged_pbc: periodic axes according to the log, used if the trajectory does not state them.

    Raises:
        So3kError: a file is missing, empty, without a complete frame, of an unknown kind, or does not fit the
            topology.
    """
    path = existing(path)
    if stride < 1:
        raise So3kError(f"stride is {stride}: it must be 1 or more")
    top_path = None if topology is None else existing(topology)
    read = reader(path)
    if top_path is None and not has_atoms(path):
        raise So3kError(f"{path} holds no topology: pass --top with a PDB or mmCIF file of the same atoms")
    frames = read(path, stride)
    top = load_topology(path, top_path, frames)
    check_atoms(path, frames, top)
    notes = [f"{path.name} is incomplete: {'; '.join(frames.lost)}."] if frames.lost else []
    frames = without(frames, repeated := superseded(restart_axis(frames)))
    if repeated.any():
        notes.append(
            f"{int(repeated.sum())} frames of {path.name} were written again by a continued run: the later "
            "ones are used."
        )
    particles = len(top.numbers)
    frames, top, labels = atoms_only(frames, top)
    if len(labels) < particles:
        n_sites = particles - len(labels)
        notes.append(f"{n_sites} virtual sites or Drude particles are left out: they are not atoms.")
    by_files = stated(path, frames, top.numbers, periodic, logged_pbc)
    bonds, bonds_from = all_bonds(frames, top, by_files)
    found = judged(by_files, frames, top_path, top.numbers, bonds)
    if found.pbc != by_files.pbc:
        bonds, bonds_from = all_bonds(frames, top, found)
    if found.doubted:
        notes.append(f"The system is treated as open: {found.reason}; --periodic yes overrides this.")
    time, unit, time_reason = rising_axis(frames, timestep_fs, frame_interval_ps)
    return Trajectory(
        positions=frames.positions,
        cells=frames.cells if any(found.pbc) else None,
        pbc=found.pbc,
        pbc_reason=found.reason,
        time=time,
        time_unit=unit,
        time_reason=time_reason,
        steps=frames.steps,
        numbers=top.numbers,
        symbols=top.symbols,
        bonds=bonds,
        bonds_from=bonds_from,
        labels=labels,
        names=top.names,
        residues=top.residues,
        notes=tuple(notes),
    )


def reader(path: Path) -> Callable[[Path, int], Frames]:
    """The function that reads a file, by its first line and its suffix.

    Raises:
        So3kError: the file is of an unknown kind, or of a kind that is not read compressed.
    """
    if is_dump(path):
        return read_dump
    kind = kind_of(path)
    if kind in NETCDF:
        raise So3kError(
            f"{path}: NetCDF of AMBER is not read: convert it with mdtraj, mdconvert {path.name} -o "
            f"{path.stem}.dcd, and give --frame-interval-ps"
        )
    if kind not in READERS:
        raise So3kError(f"{path} is not a trajectory of a known kind: give {TRAJECTORIES}")
    if path.suffix.lower() != kind and kind not in COMPRESSIBLE:
        raise So3kError(
            f"{path} is compressed, and compressed {kind} files are not read: decompress it first"
        )
    return READERS[kind]


def has_atoms(path: Path) -> bool:
    """Whether a trajectory file names its atoms, so that it needs no topology."""
    return not is_dump(path) and kind_of(path) in (*HDF5, *COMPRESSIBLE)


def check_atoms(path: Path, frames: Frames, top: Topology) -> None:
    """Refuse a trajectory with other atoms than its topology.

    Raises:
        So3kError: another number of atoms, or, in a file that names elements, other elements.
    """
    found, n_atoms = frames.positions.shape[1], len(top.numbers)
    if found != n_atoms:
        raise So3kError(
            f"{path} has {found} atoms, the topology has {n_atoms}: give the topology of this run"
        )
    if set(frames.elements) == {"C"}:  # LAMMPS writes C for all atoms without `dump_modify element`
        return
    for k, (ours, theirs) in enumerate(zip(top.symbols, frames.elements, strict=bool(frames.elements))):
        if theirs.lower() not in (ours.lower(), top.names[k].lower()) and top.numbers[k]:
            raise So3kError(
                f"{path}: atom id {k + 1} is {theirs}, the topology has {ours}: give the topology of this run"
            )


def restart_axis(frames: Frames) -> Array | Integers:
    """Steps, times or numbers of the frames, which decrease where a run continues an earlier frame."""
    return next((axis for axis in (frames.steps, frames.time) if axis is not None), frames.number)


def without(frames: Frames, dropped: Flags) -> Frames:
    """The frames without those that are marked."""
    kept = {
        name: values[~dropped]
        for name in ("positions", "cells", "number", "time", "steps")
        if (values := getattr(frames, name)) is not None
    }
    return frames._replace(**kept) if dropped.any() else frames


def atoms_only(frames: Frames, top: Topology) -> tuple[Frames, Topology, tuple[str, ...]]:
    """Frames, topology and labels of the atoms, without virtual sites and Drude particles.

    Raises:
        So3kError: no particle is an atom.
    """
    real = real_atoms(top, frames.positions[0])
    if not real.any():
        raise So3kError("no particle of the topology has an element: name the elements in it")
    labels = tuple(f"{top.symbols[k]}{k}" for k in np.flatnonzero(real).tolist())
    if real.all():
        return frames, top, labels
    return frames._replace(positions=frames.positions[:, real]), select(top, real), labels


def all_bonds(frames: Frames, top: Topology, found: Periodicity) -> tuple[Integers, str]:
    """The bonds of the topology and those that it lacks, and their source."""
    lacking = lacks_bonds(top.bonds, top.residues)
    first = frames.positions[0]
    if not lacking.any() or not sound_frames(frames.positions[:1]).all():
        return top.bonds, "the topology"
    cell = frames.cells[0] if any(found.pbc) and frames.cells is not None else None
    guessed = guess_bonds(top.numbers, first, cell, found.pbc if cell is not None else False).bonds
    guessed = guessed[lacking[guessed].any(axis=1)]
    if not len(top.bonds):
        return guessed, "covalent radii in the first frame (the topology has none)"
    if not len(guessed):
        return top.bonds, "the topology"
    bonds: Integers = np.unique(np.concatenate([top.bonds, guessed]), axis=0)
    n_atoms = int(lacking[np.unique(guessed)].sum())
    return bonds, (
        f"the topology, and {len(guessed)} by covalent radii in the first frame for {n_atoms} atoms that "
        "have none in it"
    )
