"""Reading a trajectory through mdtraj, with the time axis and the periodicity that the engine meant."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj as md
import numpy as np

from so3k_md.analysis.bonds import guess_bonds
from so3k_md.analysis.geometry import NOT_PERIODIC, Array, Integers
from so3k_md.analysis.headers import Header, is_dump, read_dcd_header, read_dump_header
from so3k_md.errors import So3kError
from so3k_md.units import NM_IN_ANGSTROM

TRAJECTORIES = ".dcd, .xtc, .h5, .hdf5 or a LAMMPS `dump custom`"
HDF5 = (".h5", ".hdf5")
OPENMM_DEFAULT_BOX_NM = 2.0


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
    numbers: Integers  # (atoms,) atomic numbers, 0 for virtual sites
    symbols: tuple[str, ...]
    bonds: Integers  # (bonds, 2)
    bonds_from: str


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
    """Read every stride-th frame of a trajectory of OpenMM or LAMMPS.

    Args:
        path: DCD, XTC, HDF5 or LAMMPS dump (xu yu zu, or x y z).
        topology: PDB, mmCIF, HDF5 or any other topology that mdtraj reads; an HDF5 trajectory has its own.
        timestep_fs: time of one step of the engine, fs: it turns the steps in DCD and dump files into time.
        frame_interval_ps: time between two frames of the file, ps; it wins over all other sources.
        stride: use every stride-th frame.
        periodic: overrule what the files say of the periodicity.
        logged_pbc: periodic directions according to the log, where the trajectory does not say.

    Raises:
        So3kError: a file is missing, empty, truncated, foreign, or does not fit the topology.
    """
    path = existing(path)
    if stride < 1:
        raise So3kError(f"stride is {stride}: it must be 1 or more")
    top = load_topology(path, topology)
    header, raw = read_frames(path, top, stride)
    numbers = np.array(
        [atom.element.atomic_number if atom.element else 0 for atom in top.atoms], dtype=np.int64
    )
    symbols = tuple(atom.element.symbol if atom.element else atom.name for atom in top.atoms)
    check_elements(path, symbols, header)
    cells = None if raw.unitcell_vectors is None else raw.unitcell_vectors.astype(np.float64) * NM_IN_ANGSTROM
    if header.pbc is None:
        header = header._replace(pbc=logged_pbc)
    pbc, pbc_reason = periodicity(path, raw, topology, header, periodic)
    steps = np.array(header.steps[::stride], dtype=np.int64) if header.steps else None
    time, unit, time_reason = time_axis(raw, path, header, steps, timestep_fs, frame_interval_ps, stride)
    positions = raw.xyz.astype(np.float64) * NM_IN_ANGSTROM
    bonds: Integers = np.array([(a.index, b.index) for a, b in top.bonds], dtype=np.int64).reshape(-1, 2)
    bonds_from = "the topology"
    cells = cells if any(pbc) else None
    if not len(bonds) and np.isfinite(positions[0]).all():
        bonds = guess_bonds(positions[0], numbers, None if cells is None else cells[0], pbc)
        bonds_from = "covalent radii in the first frame (the topology has none)"
    return Trajectory(
        positions=positions,
        cells=cells,
        pbc=pbc,
        pbc_reason=pbc_reason,
        time=time,
        time_unit=unit,
        time_reason=time_reason,
        steps=steps,
        numbers=numbers,
        symbols=symbols,
        bonds=np.sort(bonds, axis=1),
        bonds_from=bonds_from,
    )


def existing(path: str | Path) -> Path:
    """The path of a file that is there and not empty."""
    path = Path(path)
    if not path.is_file():
        raise So3kError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give the path of a file"
        )
    if path.stat().st_size == 0:
        raise So3kError(f"{path} is empty: the run wrote nothing; run it again")
    return path


def load_topology(path: Path, topology: str | Path | None) -> Any:
    """The mdtraj topology, from its own file or from inside an HDF5 trajectory."""
    if topology is None:
        if path.suffix.lower() not in HDF5:
            raise So3kError(
                f"{path} holds no topology: pass --top with a PDB or mmCIF file of the same atoms"
            )
        topology = path
    source = existing(topology)
    if source.suffix.lower() in HDF5:
        require_tables()
    return guarded(
        lambda: md.load_topology(str(source)), source, "a topology that mdtraj reads (PDB, mmCIF, HDF5)"
    )


def read_frames(path: Path, top: Any, stride: int) -> tuple[Header, Any]:
    """The frames through mdtraj, after the header has been read for what mdtraj leaves out."""
    suffix = path.suffix.lower()
    header = Header(frames=0, steps=())
    load: Callable[..., Any] = md.load
    if is_dump(path):
        header, load = read_dump_header(path), md.load_lammpstrj
    elif suffix == ".dcd":
        header = read_dcd_header(path)
    elif suffix in HDF5:
        require_tables()
        load = md.load_hdf5
    elif suffix != ".xtc":
        raise So3kError(f"{path} is not a trajectory of a known kind: give {TRAJECTORIES}")
    keywords = {"stride": stride} if load is md.load_hdf5 else {"stride": stride, "top": top}
    raw = guarded(
        lambda: load(str(path), **keywords), path, "a whole trajectory of this topology", top.n_atoms
    )
    if raw.n_atoms != top.n_atoms:
        refuse_atom_count(path, raw.n_atoms, top.n_atoms)
    expected = -(-header.frames // stride)
    if header.frames and raw.n_frames != expected:
        raise So3kError(
            f"{path} is truncated: {raw.n_frames} of {expected} frames are there; copy or write it again"
        )
    if raw.n_frames == 0:
        raise So3kError(f"{path} holds no frame: run it again")
    return header, raw


def refuse_atom_count(path: Path, n_found: int | str, n_atoms: int) -> None:
    """Trajectory and topology of different systems."""
    raise So3kError(f"{path} has {n_found} atoms, the topology has {n_atoms}: give the topology of this run")


def guarded(read: Callable[[], Any], path: Path, what: str, n_atoms: int | None = None) -> Any:
    """Call mdtraj with its chatter off, and turn its many exceptions into one line."""
    try:
        with quiet_stdout():
            return read()
    except Exception as error:
        text = str(error)
        if n_atoms is not None and ("same atoms" in text or "must be shape" in text):
            refuse_atom_count(path, "another number of", n_atoms)
        first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)[:120]
        raise So3kError(f"{path} cannot be read as {what}: it is cut or of another kind ({first})") from error


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Silence file descriptor 1: mdtraj's DCD reader prints from C."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def require_tables() -> None:
    """HDF5 files need PyTables, which mdtraj does not install."""
    if importlib.util.find_spec("tables") is None:
        raise So3kError("HDF5 trajectories need the package tables: pip install 'so3k-md[analysis]'")


def check_elements(path: Path, symbols: Sequence[str], header: Header) -> None:
    """A dump that names elements must name those of the topology, in the order of the ids."""
    if set(header.elements) == {"C"}:  # what LAMMPS writes for every atom without `dump_modify element`
        return
    for k, (ours, theirs) in enumerate(zip(symbols, header.elements, strict=bool(header.elements))):
        if ours.lower() != theirs.lower():
            raise So3kError(
                f"{path}: atom id {k + 1} is {theirs}, the topology has {ours}: give the topology of this run"
            )


def periodicity(
    path: Path, raw: Any, topology: str | Path | None, header: Header, periodic: bool | None
) -> tuple[tuple[bool, bool, bool], str]:
    """Which directions repeat, and how that is known: a cell in the file alone does not prove it."""
    if raw.unitcell_vectors is None or not np.all(np.abs(np.linalg.det(raw.unitcell_vectors)) > 0):
        if periodic:
            raise So3kError(f"{path} holds no cell: it cannot be analysed as periodic; drop --periodic yes")
        return NOT_PERIODIC, "the file holds no cell"
    if periodic is not None:
        return (periodic, periodic, periodic), "as asked"
    if header.pbc is not None:
        return header.pbc, "boundary flags of LAMMPS"
    default_box = np.allclose(raw.unitcell_lengths, OPENMM_DEFAULT_BOX_NM) and np.allclose(
        raw.unitcell_angles, 90
    )
    if path.suffix.lower() in HDF5 and default_box and not topology_has_cell(topology):
        return NOT_PERIODIC, "the cell is the 2 nm default that OpenMM's HDF5 files carry without periodicity"
    return (True, True, True), "the file holds a cell"


def topology_has_cell(topology: str | Path | None) -> bool:
    """Whether a topology file of its own states a cell (CRYST1 in a PDB)."""
    if topology is None or Path(topology).suffix.lower() in HDF5:
        return False
    with quiet_stdout():
        return md.load(str(topology)).unitcell_lengths is not None


def time_axis(
    raw: Any,
    path: Path,
    header: Header,
    steps: Integers | None,
    timestep_fs: float | None,
    frame_interval_ps: float | None,
    stride: int,
) -> tuple[Array, str, str]:
    """The time of each frame, its unit and its source; plain frame numbers where no time is known."""
    frames = np.arange(raw.n_frames) * float(stride)
    if frame_interval_ps is not None:
        return frames * frame_interval_ps, "ps", f"{frame_interval_ps:g} ps between frames, as given"
    if steps is not None and timestep_fs is not None:
        return steps * timestep_fs / 1000, "ps", f"steps in the file × {timestep_fs:g} fs"
    if steps is not None and header.interval_ps is not None:
        # The header holds the step in single precision; no engine resolves 1e-4 fs.
        timestep = round(header.interval_ps * 1000, 4)
        return steps * timestep / 1000, "ps", f"steps in the file × {timestep:g} fs, both written by OpenMM"
    if path.suffix.lower() in (".xtc", *HDF5) and not is_dump(path):
        return np.asarray(raw.time, dtype=np.float64), "ps", "written in the file"
    return frames, "frame", "unknown: pass --timestep-fs, --frame-interval-ps or the --log of LAMMPS"
