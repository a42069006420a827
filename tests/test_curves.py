"""`so3k-md curves` reads the logs of trainings and draws them in one picture."""

import math

import pytest

from so3k_md.cli import main
from so3k_md.train.curves import ERRORS, Curve, errors_in, read_curve, table_of_curves
from so3k_md.train.log import Log, Row

NAN = math.nan


def rows(scale: float, dipole: float = NAN, n: int = 5) -> list[Row]:
    return [
        Row(k, 10 * k, 1e-3, 1 / k, 2 / k, scale * 30 / k, scale * 90 / k, NAN, 60.0 * k, dipole / k)
        for k in range(1, n + 1)
    ]


@pytest.fixture
def folder(tmp_path):
    """Two runs, one of them of a model with charges."""
    for name, made in (("plain", rows(2.0)), ("charged", rows(1.0, 8.0, 3))):
        (tmp_path / name).mkdir()
        log = Log(tmp_path / name, [], tensorboard=False)
        for row in made:
            log.add(row)
    return tmp_path


def test_a_log_is_read_as_it_was_written(folder):
    assert str(read_curve(folder / "plain")) == str(Curve("plain", rows(2.0)))
    assert str(read_curve(folder / "charged", "b")) == str(Curve("b", rows(1.0, 8.0, 3)))


def test_smallest_errors(folder):
    curves = [read_curve(folder / name) for name in ("plain", "charged")]
    assert [curve.best("valid_forces_mae_mev_per_angstrom") for curve in curves] == [36.0, 30.0]
    assert [name.split()[0] for name in map(ERRORS.get, errors_in(curves))] == ["forces", "energy", "dipole"]
    cells = [line.split() for line in table_of_curves(curves).splitlines()[1:]]
    assert cells == [["plain", "5", "5.0", "36", "12", "-"], ["charged", "3", "3.0", "30", "10", "2.67"]]


@pytest.mark.parametrize("axis", ["epoch", "step", "time"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_made(folder, axis, ending, capsys):
    output = folder / f"a.{ending}"
    runs = [str(folder / name) for name in ("plain", "charged")]
    assert main(["curves", *runs, "-o", str(output), "--against", axis, "--label", "one", "two"]) == 0
    assert output.stat().st_size > 5000
    assert "two" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plain", "none"], "none: has no log.csv"),
        (["plain", "md"], "is not the log of a training"),
        (["plain", "early"], "has no row yet"),
        (["plain", "-o", "a.txt"], "ends with .png"),
        (["plain", "-o", "plain/log.csv"], "exists already"),
        (["plain", "charged", "--label", "one"], "give one for each"),
    ],
)
def test_refuses_in_one_line(folder, monkeypatch, capsys, words, says):
    for name, text in (("md", '#"Step","Energy"\n1,2\n'), ("early", ",".join(Row._fields) + "\n")):
        (folder / name).mkdir()
        (folder / name / "log.csv").write_text(text)
    monkeypatch.chdir(folder)
    assert main(["curves", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (folder / "curves.png").exists()
