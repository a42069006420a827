"""The same motion through every file format, and what is refused."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from so3k_md.analysis.formats.dcd import read_dcd
from so3k_md.analysis.trajectory import load_trajectory
from so3k_md.errors import So3kError

CELL = np.array([[20.0, 0, 0], [4, 19, 0], [-3, 2, 18]])
KINDS = ["dcd", "xtc", "h5", "dump"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", [None, CELL])
def test_every_format_gives_the_same_motion(run: SimpleNamespace, kind: str, cell: np.ndarray | None) -> None:
    found = load_trajectory(run.write(kind, cell=cell), run.top)
    rounding = 0.006 if kind == "xtc" else 1e-5  # XTC keeps 0.001 nm
    assert found.positions == pytest.approx(run.positions, abs=rounding)
    assert found.symbols == ("C", "O", "H", "H", "H", "C", "H", "H", "H")
    assert len(found.bonds) == 8
    assert found.pbc == (cell is not None,) * 3
    if cell is not None:
        assert np.linalg.det(found.cells) == pytest.approx(np.linalg.det(cell), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_stride_keeps_every_third_frame_and_its_time(run: SimpleNamespace, kind: str) -> None:
    path = run.write(kind)
    found = load_trajectory(path, run.top, stride=3, frame_interval_ps=0.1)
    assert found.positions == pytest.approx(run.positions[::3], abs=0.006)
    assert found.time == pytest.approx(0.1 * np.arange(0, 40, 3))


def test_where_time_comes_from(run: SimpleNamespace) -> None:
    assert load_trajectory(run.write("xtc"), run.top).time == pytest.approx(0.5 * np.arange(40))
    assert load_trajectory(run.write("h5")).time == pytest.approx(0.5 * np.arange(40))
    dump = run.write("dump")
    assert load_trajectory(dump, run.top).time_unit == "frame"
    assert load_trajectory(dump, run.top, timestep_fs=0.5).time == pytest.approx(0.01 * np.arange(40))
    dcd = run.write("dcd")
    found = load_trajectory(dcd, run.top)
    assert found.time_unit == "frame"
    assert "--timestep-fs" in found.time_reason
    assert found.time == pytest.approx(np.arange(40))


def test_openmm_states_steps_and_time_in_its_dcd(run: SimpleNamespace) -> None:
    app = pytest.importorskip("openmm.app")
    unit = pytest.importorskip("openmm.unit")
    topology = app.PDBFile(str(run.top)).topology
    path = run.folder / "openmm.dcd"
    with open(path, "wb") as file:
        dcd = app.DCDFile(file, topology, 0.5 * unit.femtosecond, 20, 20)
        for places in run.positions:
            dcd.writeModel(places * unit.angstrom)
    assert read_dcd(path, 1).steps[:2].tolist() == [20, 40]
    found = load_trajectory(path, run.top)
    assert found.time == pytest.approx(0.01 * np.arange(1, 41))
    assert "OpenMM" in found.time_reason


def test_bonds_are_guessed_where_the_topology_has_none(
    run: SimpleNamespace, make_top: Callable[[bool], Path]
) -> None:
    found = load_trajectory(run.write("dcd"), make_top(False))
    assert len(found.bonds) == 8
    assert "covalent radii" in found.bonds_from


def test_the_default_box_of_openmm_in_hdf5_is_no_periodicity(run: SimpleNamespace) -> None:
    path = run.write("h5", cell=np.diag([20.0, 20, 20]))
    found = load_trajectory(path)
    assert (found.pbc, found.cells) == ((False,) * 3, None)
    assert load_trajectory(path, periodic=True).pbc == (True,) * 3


def test_periodicity_may_be_overruled(run: SimpleNamespace) -> None:
    path = run.write("xtc", cell=CELL)
    assert load_trajectory(path, run.top, periodic=False).cells is None
    assert load_trajectory(path, run.top, logged_pbc=(True, False, True)).pbc == (True, False, True)
    with pytest.raises(So3kError, match="holds no cell"):
        load_trajectory(run.write("dcd"), run.top, periodic=True)


def test_nothing_is_printed(run: SimpleNamespace, capfd: pytest.CaptureFixture[str]) -> None:
    load_trajectory(run.write("dcd"), run.top)
    assert capfd.readouterr() == ("", "")


def edit(change: Callable[[str], str]) -> Callable[[SimpleNamespace], tuple[Path, Path]]:
    """A dump whose text was changed."""

    def make(run: SimpleNamespace) -> tuple[Path, Path]:
        path = run.write("dump")
        path.write_text(change(path.read_text()))
        return path, run.top

    return make


def cut(kind: str, keep: float) -> Callable[[SimpleNamespace], tuple[Path, Path]]:
    """A file of which only a part was copied."""

    def make(run: SimpleNamespace) -> tuple[Path, Path]:
        path = run.write(kind)
        raw = path.read_bytes()
        path.write_bytes(raw[: int(keep * len(raw))])
        return path, run.top

    return make


def junk(name: str) -> Callable[[SimpleNamespace], tuple[Path, Path]]:
    """Text under the name of a trajectory."""

    def make(run: SimpleNamespace) -> tuple[Path, Path]:
        path = run.folder / name
        path.write_text("no trajectory at all\n" * 200)
        return path, run.top

    return make


def fewer_atoms(kind: str) -> Callable[[SimpleNamespace], tuple[Path, Path]]:
    """A trajectory with atoms more than the topology has."""

    def make(run: SimpleNamespace) -> tuple[Path, Path]:
        path = run.write(kind)
        lines = [
            line for line in run.top.read_text().splitlines() if not re.match(r"(HETATM|ATOM) +[89] ", line)
        ]
        small = run.folder / "small.pdb"
        small.write_text("\n".join(line for line in lines if not line.startswith(("CONECT", "TER"))) + "\n")
        return path, small

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda run: (run.folder / "none.dcd", run.top), "does not exist"),
        (lambda run: (run.folder, run.top), "is a folder"),
        (lambda run: (run.write("dcd"), None), "--top"),
        (lambda run: (run.write("dcd"), run.folder / "none.pdb"), "none.pdb does not exist"),
        (lambda run: (run.write("dcd").rename(run.folder / "run.trr"), run.top), "known kind"),
        (cut("dcd", 0), "is empty"),
        (cut("dcd", 0.02), "truncated or damaged header|no complete frame"),
        (cut("xtc", 0.01), "no complete frame"),
        (cut("h5", 0.3), "no complete frame"),
        (cut("dump", 0.0001), "known kind"),
        (cut("dump", 0.01), "no complete frame"),
        (junk("x.dcd"), "not a DCD file"),
        (junk("x.xtc"), "another kind"),
        (junk("x.h5"), "another kind"),
        (junk("x.lammpstrj"), "known kind"),
        (fewer_atoms("dcd"), "atoms, the topology has 7"),
        (fewer_atoms("xtc"), "atoms, the topology has 7"),
        (fewer_atoms("dump"), "atoms, the topology has 7"),
        (fewer_atoms("h5"), "atoms, the topology has 7"),
        (edit(lambda text: text.replace("xu yu zu", "xs ys zs")), "scaled positions would be taken for Å"),
        (edit(lambda text: text.replace("xu yu zu", "xsu ysu zsu")), "scaled positions"),
        (edit(lambda text: text.replace("id type", "type mol")), "id and type"),
        (
            edit(lambda text: text.replace("\n9 3 H", "\n19 3 H").replace("\n9 2 H", "\n19 2 H")),
            "ids are not 1…9",
        ),
        (edit(lambda text: text.replace("\n2 3 O", "\n2 3 N")), "atom id 2 is N, the topology has O"),
        (
            edit(lambda text: "ITEM: TIMESTEP\n0\nITEM: UNITS\nlj\n" + text.split("\n", 2)[2]),
            "dump_modify units no",
        ),
        (
            edit(lambda text: text + text[:500].replace("id type element", "id type mol")),
            "incomplete|other columns or another number of atoms",
        ),
    ],
)
def test_what_is_refused_in_one_line(
    run: SimpleNamespace, make: Callable[[SimpleNamespace], tuple[Path, Path]], words: str
) -> None:
    path, top = make(run)
    with pytest.raises(So3kError, match=words) as caught:
        load_trajectory(path, top)
    assert "\n" not in str(caught.value)


def test_a_dump_with_default_elements_is_read(run: SimpleNamespace) -> None:
    """Without `dump_modify element` LAMMPS calls every atom C."""
    path = run.write("dump")
    path.write_text(re.sub(r"(?m)^(\d+ \d) [COH] ", r"\1 C ", path.read_text()))
    assert load_trajectory(path, run.top).symbols[1] == "O"


def test_a_stride_of_zero(run: SimpleNamespace) -> None:
    with pytest.raises(So3kError, match="stride"):
        load_trajectory(run.write("dcd"), run.top, stride=0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mark", [4, 8])
@pytest.mark.parametrize("with_cell", [False, True])
def test_dcd_with_fixed_atoms(run: SimpleNamespace, order: str, mark: int, with_cell: bool) -> None:
    """CHARMM and NAMD write fixed atoms in the first frame only."""
    free = np.array([1, 2, 5, 8])
    positions = run.positions.copy()
    positions[:, np.setdiff1d(np.arange(9), free)] = positions[0, np.setdiff1d(np.arange(9), free)]
    cell = np.diag([20.0, 21.0, 22.0]) if with_cell else None
    path = run.folder / "fixed.dcd"
    path.write_bytes(fixed_dcd(positions, free, cell, order, mark))
    found = load_trajectory(path, run.top, frame_interval_ps=1.0, stride=3)
    np.testing.assert_allclose(found.positions, positions[::3], atol=1e-5)
    assert not found.notes
    if cell is not None:
        np.testing.assert_allclose(found.cells, np.repeat(cell[None], len(found.positions), axis=0))
    raw = path.read_bytes()
    path.write_bytes(raw[:-5])
    cut = load_trajectory(path, run.top, frame_interval_ps=1.0)
    np.testing.assert_allclose(cut.positions, positions[:-1], atol=1e-5)
    assert "incomplete" in cut.notes[0]
    head = len(raw) - 39 * (3 * (4 * len(free) + 2 * mark) + with_cell * (48 + 2 * mark))
    path.write_bytes(raw[: head - 5])
    with pytest.raises(So3kError, match="first frame, the only one with the fixed atoms, is incomplete"):
        load_trajectory(path, run.top)


def test_dcd_with_a_wrong_list_of_free_atoms(run: SimpleNamespace) -> None:
    path = run.folder / "fixed.dcd"
    path.write_bytes(fixed_dcd(run.positions, np.array([1, 5, 30]), None, "<", 4))
    with pytest.raises(So3kError, match="list of free atoms does not fit 9 atoms of which 6 are fixed"):
        load_trajectory(path, run.top)


def fixed_dcd(positions: np.ndarray, free: np.ndarray, cell, order: str, mark: int) -> bytes:
    """A DCD of CHARMM, of which only the first frame holds all atoms."""

    def record(data: bytes) -> bytes:
        edge = struct.pack(f"{order}{'i' if mark == 4 else 'q'}", len(data))
        return edge + data + edge

    def frame(places: np.ndarray) -> bytes:
        box = () if cell is None else np.array([cell[0, 0], 90, cell[1, 1], 90, 90, cell[2, 2]])
        head = record(np.asarray(box, dtype=f"{order}f8").tobytes()) if len(box) else b""
        return head + b"".join(record(places[:, axis].astype(f"{order}f4").tobytes()) for axis in range(3))

    n_atoms = positions.shape[1]
    counts = [len(positions), 1, 1, *[0] * 5, n_atoms - len(free), 0, int(cell is not None), *[0] * 8, 24]
    header = record(b"CORD" + struct.pack(f"{order}20i", *counts))
    title = record(struct.pack(f"{order}i", 1) + b"by NAMD".ljust(80))
    atoms = record(struct.pack(f"{order}i", n_atoms))
    listed = record((free + 1).astype(f"{order}i4").tobytes())
    first, later = frame(positions[0]), b"".join(frame(places[free % n_atoms]) for places in positions[1:])
    return header + title + atoms + listed + first + later


def test_netcdf_is_refused_with_the_conversion(run: SimpleNamespace) -> None:
    path = run.folder / "run.nc"
    path.write_bytes(b"CDF\x02")
    with pytest.raises(So3kError, match=r"mdconvert run\.nc -o run\.dcd, and give --frame-interval-ps"):
        load_trajectory(path, run.top)
