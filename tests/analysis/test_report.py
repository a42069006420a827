"""From trajectories to a page and to JSON, as a user does it."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from so3k_md.analysis import analyze, write_report
from so3k_md.analysis.figures import draw_all
from so3k_md.analysis.page import subscript, with_error
from so3k_md.cli import main
from so3k_md.errors import So3kError

UNITLESS = {"atom", "g(r)", "frame (time unknown)", "row of the log"}
CELL = np.diag([9.0, 10.0, 11.0])


@pytest.fixture
def log(run: SimpleNamespace) -> Path:
    """NVE with a drift of 1e-5 eV/atom/ps, about 300 K."""
    rng = np.random.default_rng(3)
    path = run.folder / "log.csv"
    head = '#"Step","Time (ps)","Potential Energy (kJ/mole)","Kinetic Energy (kJ/mole)","Temperature (K)"'
    rows = []
    for k in range(200):
        kinetic = 0.5 * 0.0083144626 * 300 * rng.chisquare(24)
        total = 96.48533212331 * 9 * 1e-5 * 0.1 * k
        rows.append(f"{k},{0.1 * k},{total - kinetic},{kinetic},{2 * kinetic / (24 * 0.0083144626)}")
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_the_numbers_of_a_run(run: SimpleNamespace, log: Path) -> None:
    found = analyze(run.write("dcd"), run.top, log, frame_interval_ps=0.5, temperature_K=300)
    assert found.stability.stable
    assert found.source.composition == "C2H6O"
    assert found.source.last_time == pytest.approx(19.5)
    assert found.energy is not None
    assert found.energy.drift.slope == pytest.approx(1e-5, rel=1e-6)
    assert found.temperature is not None
    assert found.temperature.summary.degrees_of_freedom == 24
    assert found.deviation is not None
    # noise of the frame and of the reference, less the six degrees of freedom of 27 that are fitted away
    expected = 0.03 * np.sqrt(6 * 21 / 27)
    assert np.sqrt(np.mean(found.deviation.rmsd[1:] ** 2)) == pytest.approx(expected, rel=0.15)
    assert np.mean(found.deviation.rmsf**2) == pytest.approx(3 * 0.03**2 * 21 / 27, rel=0.1)
    assert found.bonds is not None
    assert {d.kind: d.number for d in found.bonds} == {"C–H": 5, "C–C": 1, "C–O": 1, "O–H": 1}
    assert found.dihedrals is not None
    assert found.rdf is None
    assert found.absent == {"rdf": "the system is not periodic in three directions (the file holds no cell)"}


def test_equal_molecules_in_a_box_are_made_whole_and_averaged(run: SimpleNamespace) -> None:
    """The box cuts the molecules; every number is that of the molecule before."""
    free = analyze(run.write("dcd"), run.top)
    wrapped = analyze(run.write("xtc", positions=run.positions % np.diag(CELL), cell=CELL), run.top)
    assert free.deviation is not None
    assert wrapped.deviation is not None
    assert wrapped.stability.stable
    assert wrapped.deviation.rmsd == pytest.approx(free.deviation.rmsd, abs=0.01)
    assert wrapped.rdf is not None
    assert {rdf.kind for rdf in wrapped.rdf} == {"C–C", "C–O", "C–H", "O–H", "H–H"}


def test_without_a_log_energies_are_absent_not_zero(run: SimpleNamespace) -> None:
    found = analyze(run.write("dcd"), run.top)
    assert (found.energy, found.temperature) == (None, None)
    assert found.absent["energy"] == found.absent["temperature"] == "no log was given (--log)"


def test_lammps_log_gives_the_dump_its_time(run: SimpleNamespace) -> None:
    log = run.folder / "log.lammps"
    rows = "\n".join(f"{20 * k} 300 1 1 2" for k in range(40))
    log.write_text(
        "LAMMPS (22 Jul 2025)\nunits metal\ntimestep 0.0005\nrun 780\n"
        f"Step Temp PotEng KinEng TotEng\n{rows}\n"
    )
    found = analyze(run.write("dump"), run.top, log)
    assert (found.source.time_unit, found.source.last_time) == ("ps", pytest.approx(0.39))
    assert found.source.periodic == (False, False, False)


def test_a_broken_run_is_called_unstable(run: SimpleNamespace) -> None:
    run.positions[30:, 8] += 2
    run.positions[35:, 3] = np.nan
    found = analyze(run.write("dcd"), run.top)
    assert not found.stability.stable
    assert (found.stability.first_bad_frame, found.stability.atoms) == (30, (5, 8))
    assert found.stability.bad_frames == 10
    assert found.bonds is not None
    assert all(np.isfinite(d.mean) for d in found.bonds)


def test_a_run_that_starts_with_no_numbers(run: SimpleNamespace, tmp_path: Path) -> None:
    found = analyze(run.write("dcd", positions=np.full_like(run.positions, np.nan)), run.top)
    assert set(found.absent) >= {"bonds", "dihedrals", "deviation"}
    write_report(found, tmp_path / "r.html", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["stable"] is False


def test_nan_in_the_log_is_unstable(run: SimpleNamespace, log: Path) -> None:
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:100], *(f"{k},{0.1 * k},nan,nan,nan" for k in range(99, 200))]))
    found = analyze(run.write("dcd"), run.top, log)
    assert not found.stability.stable
    assert "row 99 (step 99)" in found.stability.verdict
    assert set(found.absent) >= {"energy", "temperature"}


def test_every_axis_has_a_unit(run: SimpleNamespace, log: Path) -> None:
    one = analyze(run.write("xtc", cell=CELL), run.top, log, label="one")
    figures = draw_all([one, one._replace(label="two")])
    assert set(figures) == {"deviation", "bonds", "dihedrals", "rdf", "energy", "temperature"}
    for figure in figures.values():
        for axes in figure.axes:
            if axes.axison:
                labels = {axes.get_xlabel(), axes.get_ylabel()}
                assert all(" / " in label or label in UNITLESS for label in labels), labels
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {"one", "two"}


def test_time_axes_fall_back_to_frames_if_one_run_has_no_time(run: SimpleNamespace) -> None:
    timed = analyze(run.write("xtc"), run.top)
    untimed = analyze(run.write("dcd"), run.top)
    figure = draw_all([timed, untimed])["deviation"]
    assert figure.axes[0].get_xlabel() == "frame (time unknown)"


def test_the_page_needs_nothing_from_elsewhere(run: SimpleNamespace, log: Path, tmp_path: Path) -> None:
    found = analyze(run.write("dcd"), run.top, log, label="a <b> & c")
    html, numbers = tmp_path / "r.html", tmp_path / "r.json"
    write_report(found, html, numbers)
    page = html.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert page.count("<img src='data:image/png;base64,") == 5
    assert "a &lt;b&gt; &amp; c" in page
    assert "Stable: 40 frames" in page
    read = json.loads(numbers.read_text(encoding="utf-8"))
    assert read["stable"] is True
    assert read["units"]["drift"] == "eV/atom/ps"
    first = read["trajectories"][0]
    assert first["energy"]["drift"]["slope"] == pytest.approx(1e-5, rel=1e-6)
    assert first["rdf"] is None
    assert first["deviation"]["rmsd"][0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(So3kError, match="exists already"):
        write_report(found, html, numbers)
    assert not list(tmp_path.glob(".*"))


def test_numbers_in_print() -> None:
    assert with_error(-3.73e-6, 1.1e-6) == "(−3.73 ± 1.10) × 10⁻⁶"
    assert with_error(1e-9, 2.5e-3) == "(0.00 ± 2.50) × 10⁻³"
    assert with_error(0.0, 0.0) == "0 ± 0"
    assert subscript("32 × C2H6O, H2") == "32 × C₂H₆O, H₂"


def test_the_command_line_with_two_runs(
    run: SimpleNamespace, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    words = ["analyze", str(run.write("dcd")), str(run.write("dump")), "--top", str(run.top)]
    words += [
        "--log",
        str(log),
        "-",
        "--label",
        "OpenMM",
        "LAMMPS",
        "-o",
        str(folder),
        "--temperature",
        "300",
    ]
    words += ["--timestep-fs", "0.5", "--json", str(tmp_path / "numbers.json")]
    assert main(words) == 0
    out = capfd.readouterr().out
    assert "OpenMM: Stable" in out
    assert str(folder / "report.html") in out
    read = json.loads((tmp_path / "numbers.json").read_text())
    assert [one["label"] for one in read["trajectories"]] == ["OpenMM", "LAMMPS"]
    assert read["trajectories"][1]["absent"]["energy"].startswith("no log")
    assert main(words) == 2
    assert "exists already" in capfd.readouterr().err
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "a", "b"], "--label has 2 values for 1 trajectories"),
        (["--log", "a", "b"], "--log has 2 values"),
        (["-o", "no/such/folder"], "cannot be created"),
        (["--json", "no/such.json"], "does not exist"),
        (["--stride", "0"], "stride is 0"),
        (["--temperature", "-3"], "temperature is -3"),
        (["--timestep-fs", "nan"], "time step is nan"),
        (["--timestep-fs", "1", "--frame-interval-ps", "1"], "not allowed with"),
        (["--log", "nothing.csv"], "nothing.csv does not exist"),
    ],
)
def test_what_the_command_line_refuses(
    run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir()) + [run.write("dcd")]
    assert main(["analyze", "run.dcd", "--top", str(run.top), *words]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == sorted(before)


def test_a_missing_package_names_the_extra(
    run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("so3k_md.analysis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mdtraj", None)
    assert main(["analyze", str(run.top), "--top", str(run.top), "-o", str(run.folder / "new")]) == 2
    assert "pip install 'so3k-md[analysis]'" in capfd.readouterr().err
    assert not (run.folder / "new").exists()
