"""Where averages start, what a run conserves, and when the log calls it unstable."""

from pathlib import Path

import numpy as np
import pytest

from so3k_md.analysis.dynamics import equilibration
from so3k_md.analysis.production import conserves, leaps, watch_log
from so3k_md.analysis.stability import Stability
from so3k_md.analysis.thermo import Thermo, read_log

STABLE = Stability(True, "Stable.", None, None, (), 0, 1, 0, (), "")
HEAD = (
    '#"Step","Time (ps)","Potential Energy (kJ/mole)","Kinetic Energy (kJ/mole)",'
    '"Total Energy (kJ/mole)","Temperature (K)"\n'
)


def log(folder: Path, rows: list[str], end: str = "\n") -> Thermo:
    path = folder / "log.csv"
    path.write_text(HEAD + "\n".join(rows) + end)
    return read_log(path)


def rows(n: int, potential: float = -10.0, temperature: float = 300.0) -> list[str]:
    return [f"{k},{0.1 * k:.1f},{potential},5,{potential + 5},{temperature}" for k in range(n)]


def test_a_ramp_is_cut_off() -> None:
    rng = np.random.default_rng(2)
    heated = np.concatenate([np.linspace(0, 300, 200), np.full(800, 300.0)]) + rng.normal(scale=10, size=1000)
    assert 170 <= equilibration(heated) <= 260
    assert equilibration(rng.normal(size=1000)) < 150
    assert equilibration(np.arange(5.0)) == 0


@pytest.mark.parametrize(("share", "said"), [(0.01, "yes"), (0.3, "unknown"), (1.5, "no")])
def test_what_is_conserved_is_seen_by_its_fluctuation(tmp_path: Path, share: float, said: str) -> None:
    rng = np.random.default_rng(4)
    kinetic, noise = rng.normal(size=(2, 400))
    thermo = log(tmp_path, rows(400))._replace(kinetic=kinetic, conserved=share * noise)
    assert conserves(thermo, slice(0, None)) == said


@pytest.mark.parametrize(
    ("fixes", "said"), [("fix 1 all nve", "yes"), ("fix 1 all nve\nfix 2 all langevin 300 300 0.1 1", "no")]
)
def test_fixes_of_lammps_say_what_is_conserved(tmp_path: Path, fixes: str, said: str) -> None:
    table = "\n".join(f"{k} 300 {-5 - k % 7} {5 + k % 7} 0" for k in range(50))
    path = tmp_path / "log.lammps"
    path.write_text(
        f"LAMMPS (22 Jul 2025)\nunits metal\n{fixes}\nrun 50\nStep Temp PotEng KinEng TotEng\n{table}\n"
    )
    assert conserves(read_log(path), slice(0, None)) == said


def test_damaged_rows_are_counted(tmp_path: Path) -> None:
    spoilt = rows(20)
    spoilt[4] = "4,0.4,-1x0,5,5,300"
    spoilt[9] = "9,0.9"
    found = log(tmp_path, spoilt)
    assert len(found.steps) == 18
    assert found.notes == ("2 rows of log.csv do not parse and are left out, the first in line 6.",)


def test_a_torn_last_row_is_left_out(tmp_path: Path) -> None:
    found = log(tmp_path, [*rows(20), "20,2.0,-10,5,-5,30"], end="")
    assert found.temperature.tolist() == [300.0] * 20
    assert "has no end" in found.notes[0]


def test_rows_of_a_continued_run_are_used_once(tmp_path: Path) -> None:
    found = log(tmp_path, [*rows(20), HEAD.strip(), *rows(30)[15:]])
    assert found.steps.tolist() == list(range(30))
    assert "5 rows" in found.notes[0]


def test_spikes_and_heat_are_unstable(tmp_path: Path) -> None:
    spike, hot = rows(20), rows(20)
    spike[7] = "7,0.7,-1e9,5,-1e9,300"
    hot[5:] = rows(20, temperature=538461.0)[5:]
    assert watch_log(STABLE, log(tmp_path, rows(20)), 9).stable
    assert "row 7 (step 7)" in watch_log(STABLE, log(tmp_path, spike), 9).verdict
    assert "538,461 K in its row 5" in watch_log(STABLE, log(tmp_path, hot), 9).verdict


def test_heating_is_no_spike() -> None:
    heated = np.concatenate([np.linspace(-0.1, 0.0, 50), np.zeros(500)])
    assert not len(leaps(heated + np.random.default_rng(1).normal(scale=1e-4, size=550)))
