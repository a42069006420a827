"""Files that a kill, a restart or a bad disk left behind: what is whole is read, what is missing is said."""

import contextlib
import gzip
import subprocess
import sys
from types import SimpleNamespace

import mdtraj as md
import numpy as np
import pytest

from so3k_md.analysis.bonds import composition
from so3k_md.analysis.formats import child, isolated
from so3k_md.analysis.times import superseded
from so3k_md.analysis.trajectory import load_trajectory
from so3k_md.errors import So3kError
from so3k_md.structure.bonds import trees

KINDS = ["dcd", "xtc", "h5", "dump", "xyz", "pdb"]


def write(run: SimpleNamespace, kind: str):
    """A trajectory of any kind, XYZ and PDB as mdtraj writes them."""
    if kind in ("xyz", "pdb"):
        path = run.folder / f"run.{kind}"
        md.Trajectory(run.positions / 10, md.load_topology(str(run.top))).save(str(path))
        return path
    return run.write(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_gives_its_whole_frames(run: SimpleNamespace, kind: str) -> None:
    path = write(run, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: -7 - len(raw) // (1000 if kind == "h5" else 80)])
    found = load_trajectory(path, run.top)
    assert 35 < len(found.positions) < 40 + (kind == "h5")  # whose frames may lie before the cut
    assert found.positions == pytest.approx(run.positions[: len(found.positions)], abs=0.006)
    assert "run." in found.notes[0]
    assert "incomplete" in found.notes[0]


@pytest.mark.parametrize("kind", ["dcd", "xtc", "dump", "xyz"])
def test_frames_behind_a_torn_one_are_found(run: SimpleNamespace, kind: str) -> None:
    path = write(run, kind)
    raw = path.read_bytes()
    whole = len(load_trajectory(path, run.top).positions)
    middle = len(raw) // 2
    path.write_bytes(raw[:middle] + raw[middle + 40 :])
    found = load_trajectory(path, run.top, frame_interval_ps=1.0)
    assert len(found.positions) >= whole - 2
    assert found.positions[-1] == pytest.approx(run.positions[-1], abs=0.006)
    assert found.notes


def test_compressed_text_that_was_cut(run: SimpleNamespace) -> None:
    path = run.folder / "run.xyz.gz"
    raw = gzip.compress(write(run, "xyz").read_bytes())
    path.write_bytes(raw[: len(raw) // 2])
    found = load_trajectory(path, run.top)
    assert 10 < len(found.positions) < 40
    assert "compressed data" in found.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_one_line_or_are_read(run: SimpleNamespace, kind: str) -> None:
    path = write(run, kind)
    raw = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(4 if kind in ("xtc", "h5") else 20):  # a process each for the first two
        spoilt = bytearray(raw)
        for at in rng.integers(len(raw), size=4):
            spoilt[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(spoilt))
        with contextlib.suppress(So3kError):
            load_trajectory(path, run.top)


@pytest.mark.parametrize(
    ("code", "said"),
    [("import os; os.kill(os.getpid(), 11)", "signal 11"), ("import time; time.sleep(60)", "no answer")],
)
def test_a_reader_that_crashes_or_hangs(
    run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    child = run.folder / "child.py"
    child.write_text(code)
    monkeypatch.setattr(isolated, "CHILD", child)
    monkeypatch.setattr(isolated, "PATIENCE_S", 1.0)
    with pytest.raises(So3kError, match=said):
        load_trajectory(run.write("h5"))


def test_the_reader_runs_without_the_package() -> None:
    code = f"import runpy, sys; runpy.run_path({str(isolated.CHILD)!r}); print('so3k_md' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_what_a_continued_run_wrote_again() -> None:
    assert superseded(np.array([0.0, 1, 2, 3, 2, 3, 4])).tolist() == [False, False, True, True] + [False] * 3
    assert not superseded(np.array([0.0, 1, 2, 0, 1])).any()


def test_two_molecules_in_a_default_box_are_open(run: SimpleNamespace) -> None:
    """Shifted by the 20 Å of the box, they lie upon each other in it, and pass through each other."""
    two = np.concatenate([run.positions, run.positions + [20.0, 0, 0]], axis=1)
    top = md.load_topology(str(run.top))
    trajectory = md.Trajectory(two / 10, top.join(top))
    trajectory.unitcell_vectors = np.repeat(2.0 * np.eye(3)[None], 40, axis=0)
    for name in ("two.dcd", "two.xtc"):
        trajectory.save(str(run.folder / name))
        trajectory[:1].save(str(run.folder / "two.pdb"))
        found = load_trajectory(run.folder / name, run.folder / "two.pdb")
        assert found.pbc == (False,) * 3
        assert "treated as open" in found.notes[0]


def test_a_pair_that_overlaps_later_in_a_real_box_is_an_event(run: SimpleNamespace) -> None:
    two = np.concatenate([run.positions, run.positions + [6.0, 0, 0]], axis=1)
    two[30:, 9:] += [7.0, 0, 0]  # now upon the image of the other at 13 Å
    top = md.load_topology(str(run.top))
    trajectory = md.Trajectory(two / 10, top.join(top))
    trajectory.unitcell_vectors = np.repeat(1.3 * np.eye(3)[None], 40, axis=0)
    trajectory.save(str(run.folder / "two.dcd"))
    trajectory[:1].save(str(run.folder / "two.pdb"))
    assert load_trajectory(run.folder / "two.dcd", run.folder / "two.pdb").pbc == (True,) * 3


def test_a_cell_of_one_cubic_angstrom_is_none(run: SimpleNamespace) -> None:
    found = load_trajectory(run.write("dcd", cell=np.eye(3)), run.top)
    assert found.pbc == (False,) * 3
    assert "cube of 1 Å" in found.notes[0]


WATER = """\
ATOM      1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O
ATOM      2  H1  HOH A   1       0.960   0.000   0.000  1.00  0.00           H
ATOM      3  H2  HOH A   1      -0.240   0.930   0.000  1.00  0.00           H
ATOM      4  M   HOH A   1       0.100   0.130   0.000  1.00  0.00          EP
ATOM      5  DO  HOH A   1       0.001   0.000   0.000  1.00  0.00
HETATM    6  C1  LIG A   2       5.000   0.000   0.000  1.00  0.00           C
HETATM    7  H1  LIG A   2       6.090   0.000   0.000  1.00  0.00           H
HETATM    8  H2  LIG A   2       4.637   1.028   0.000  1.00  0.00           H
HETATM    9  H3  LIG A   2       4.637  -0.514   0.890  1.00  0.00           H
HETATM   10  H4  LIG A   2       4.637  -0.514  -0.890  1.00  0.00           H
HETATM   11 NA    NA A   3       2.200  -1.000   0.000  1.00  0.00          NA
END
"""


def test_a_ligand_without_bonds_beside_water_with_sites_and_an_ion(run: SimpleNamespace) -> None:
    path = run.folder / "water.pdb"
    path.write_text(WATER)
    found = load_trajectory(path)
    molecules = trees(len(found.numbers), found.bonds)[1]
    assert composition(found.symbols, molecules) in ("H2O, CH4, Na", "CH4, H2O, Na")
    assert found.labels[3] == "C5"
    assert "2 virtual sites" in found.notes[0]


@pytest.mark.parametrize("stride", [1, 3, 7])
@pytest.mark.parametrize("frames_per_read", [1, 2, 4, 100])
def test_xtc_is_read_in_pieces_of_any_length(
    run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, stride: int, frames_per_read: int
) -> None:
    path = run.write("xtc")
    monkeypatch.setattr(child, "BATCH", frames_per_read * 12 * 9)
    messages = list(child.read_xtc(str(path), stride))
    assert max(len(message["number"]) for message in messages) <= frames_per_read
    numbers = np.concatenate([message["number"] for message in messages])
    assert numbers.tolist() == list(range(0, 40, stride))
    positions = np.concatenate([message["xyz"] for message in messages])
    assert 10 * positions == pytest.approx(run.positions[::stride], abs=0.006)
