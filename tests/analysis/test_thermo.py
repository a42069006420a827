"""Logs of both engines, in eV, ps and K."""

from pathlib import Path

import pytest

from so3k_md.analysis.thermo import read_log
from so3k_md.errors import So3kError

HEAD = (
    '#"Step","Time (ps)","Potential Energy (kJ/mole)","Kinetic Energy (kJ/mole)",'
    '"Total Energy (kJ/mole)","Temperature (K)"'
)
OPENMM = f"""\
{HEAD}
100,0.05,-964.853321233,964.853321233,0.0,271.9
200,0.1,-868.3679891,964.853321233,96.48533212,296.3
"""
LAMMPS = """\
LAMMPS (22 Jul 2025)
units {units}  # eV or kcal
boundary p p f
timestep 0.5 # short
thermo_style custom step temp pe ke etotal
minimize 1e-6 1e-8 100 100
   Step          Temp          PotEng         KinEng         TotEng
         0   0              9.0            0              9.0
        12   0              8.0            0              8.0
Loop time of 0.001 on 1 procs for 12 steps with 9 atoms
run 20
Per MPI rank memory allocation (min/avg/max) = 3.1 | 3.1 | 3.1 Mbytes
   Step          Temp          PotEng         KinEng         TotEng
         0   300            5.0            7.0            12.0
WARNING: something about 3 atoms
        10   250            6.0            6.0            12.5
        20   310            7.0            7.0            13.0
Loop time of 0.00190 on 1 procs for 20 steps with 9 atoms
run 10
   Step          Temp          PotEng         KinEng         TotEng
        20   310            7.0            7.0            13.0
        30   290            6.5            6.5            13.5
Loop time of 0.00190 on 1 procs for 10 steps with 9 atoms
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "log"
    path.write_text(text)
    return path


def test_openmm_in_ev(tmp_path: Path) -> None:
    found = read_log(write(tmp_path, OPENMM))
    assert found.program == "OpenMM"
    assert found.time == pytest.approx([0.05, 0.1])
    assert found.potential == pytest.approx([-10, -9])
    assert found.kinetic == pytest.approx([10, 10])
    assert found.conserved == pytest.approx([0, 1])
    assert found.temperature == pytest.approx([271.9, 296.3])


def test_openmm_with_tabs_steps_only_and_no_total(tmp_path: Path) -> None:
    rows = [line.split(",") for line in OPENMM.splitlines()]
    kept = "".join("\t".join([row[0], *row[2:4]]) + "\n" for row in rows)
    path = write(tmp_path, kept)
    assert read_log(path).time is None
    found = read_log(path, timestep_fs=0.5)
    assert found.time == pytest.approx([0.05, 0.1])
    assert found.conserved == pytest.approx([0, 1])
    assert found.temperature is None


@pytest.mark.parametrize(("units", "energy", "ps"), [("real", 0.0433641, 0.0005), ("metal", 1.0, 0.5)])
def test_lammps_units_and_runs_that_continue(tmp_path: Path, units: str, energy: float, ps: float) -> None:
    found = read_log(write(tmp_path, LAMMPS.format(units=units)))
    assert found.steps is not None
    assert found.steps.tolist() == [0, 10, 20, 30]  # joined, the shared row once, without the minimisation
    assert found.time == pytest.approx([0, 10 * ps, 20 * ps, 30 * ps])
    assert found.conserved == pytest.approx(
        [12 * energy, 12.5 * energy, 13 * energy, 13.5 * energy], rel=1e-5
    )
    assert found.timestep_fs == pytest.approx(ps * 1000)
    assert found.pbc == (True, True, False)
    assert "runs 1 to 2 of 2" in found.rows


def test_lammps_last_run_after_a_reset(tmp_path: Path) -> None:
    text = LAMMPS.format(units="real").replace(
        "        20   310            7.0            7.0            13.0\n        30",
        "         0   310  7.0  7.0  13.0\n        30",
    )
    assert "run 2 of 2 in the log, 2 rows" in read_log(write(tmp_path, text)).rows


def test_the_thermostats_conserved_quantity_is_taken(tmp_path: Path) -> None:
    text = LAMMPS.format(units="metal").replace("TotEng", "Econserve")
    found = read_log(write(tmp_path, text))
    assert found.conserved_name.startswith("Econserve")
    assert found.conserved == pytest.approx([12, 12.5, 13, 13.5])


def test_default_thermo_output_has_its_potential_energy(tmp_path: Path) -> None:
    text = LAMMPS.format(units="metal").replace("PotEng         KinEng", "E_pair         E_mol ")
    assert read_log(write(tmp_path, text)).potential == pytest.approx([12, 12, 14, 13])


def test_a_killed_run_leaves_what_it_wrote(tmp_path: Path) -> None:
    text = LAMMPS.format(units="metal")
    found = read_log(write(tmp_path, text[: text.index("        20   310") + 14]))
    assert found.steps is not None
    assert found.steps.tolist() == [0, 10]


def test_nan_is_read_as_such(tmp_path: Path) -> None:
    text = LAMMPS.format(units="metal").replace(
        "290            6.5            6.5            13.5", "nan nan nan nan"
    )
    conserved = read_log(write(tmp_path, text)).conserved
    assert conserved is not None
    assert conserved[-1] != conserved[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "no known kind"),
        (OPENMM.splitlines()[0], "no row"),
        ('#"Step"\nfoo\n', "does not parse"),
        (LAMMPS.format(units="lj"), "units lj"),
        (LAMMPS.format(units="real") + "\nthermo_modify norm yes\n", "norm no"),
        (
            "LAMMPS (22 Jul 2025)\nunits metal\nrun 5\n------ Step 0 ----- CPU = 0 -----\nTotEng = 1\n",
            "no thermo table",
        ),
    ],
)
def test_logs_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(So3kError, match=words):
        read_log(write(tmp_path, text))


def test_a_missing_log(tmp_path: Path) -> None:
    with pytest.raises(So3kError, match="does not exist"):
        read_log(tmp_path / "nothing.csv")
