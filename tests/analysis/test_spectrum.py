"""Infrared spectra: lines where the dipole oscillates, as strong as harmonic theory says, from any file."""

import json

import numpy as np
import pytest

from so3k_md import cli
from so3k_md.analysis.dipoles import Dipoles, read_dipoles
from so3k_md.analysis.spectrum import C_CM_PS, infrared_spectrum, named_peaks
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.units import BOLTZMANN_EV_K

LINES = {1595.0: 0.5, 3657.0: 1.0}  # cm⁻¹, dμ/dQ in D/(Å √amu)
INTENSITY = 42.256  # km/mol of 1 D/(Å √amu), the factor of tables of harmonic frequencies
DEBYE = 0.20819433  # e Å
EV_AMU = 9648.533  # Å²/ps² in eV/amu
KELVIN = 320.0


def oscillating(interval=0.001, rows=20001, offset=0.0, drift=0.0):
    """Normal modes at the temperature: ⟨Q̇²⟩ = kT, a line along x and one along y."""
    t = interval * np.arange(rows)
    dipole = np.full((rows, 3), offset) + drift * t[:, None]
    for axis, (wavenumber, slope) in enumerate(LINES.items()):
        omega = 2 * np.pi * C_CM_PS * wavenumber
        amplitude = np.sqrt(2 * BOLTZMANN_EV_K * KELVIN * EV_AMU) / omega  # Å √amu
        dipole[:, axis] += slope * DEBYE * amplitude * np.cos(omega * t + 0.3)
    return Dipoles("made", interval, dipole)


@pytest.mark.parametrize("interval", [0.0005, 0.002, 0.004])
def test_lines_have_their_place_width_and_strength(interval):
    run = oscillating(interval, round(20 / interval) + 1, offset=3.0, drift=0.2)
    found = infrared_spectrum(run, KELVIN, 10.0)
    assert sorted(x for x, _ in found.peaks if x < 4000)[:2] == pytest.approx(list(LINES), abs=0.5)
    assert found.resolution == pytest.approx(10, rel=0.01)
    for wavenumber, slope in LINES.items():
        near = abs(found.wavenumber - wavenumber) < 100
        x, y = found.wavenumber[near], found.intensity[near]
        assert np.trapezoid(y, x) == pytest.approx(INTENSITY * slope**2, rel=0.02)
        above = x[y > y.max() / 2]
        assert np.ptp(above) == pytest.approx(10, abs=2)
    quiet = (found.wavenumber < 1400) | (abs(found.wavenumber - 2600) < 600)
    assert abs(found.intensity[quiet]).max() < 1e-3 * found.intensity.max()


def test_a_short_run_says_how_coarse_it_is():
    found = infrared_spectrum(oscillating(0.001, 1001), KELVIN, 1.0)
    assert found.resolution == pytest.approx(1 / (C_CM_PS * 0.5), rel=1e-6)
    with pytest.raises(So3kError, match="has 20 rows"):
        infrared_spectrum(oscillating(rows=20), KELVIN)
    with pytest.raises(So3kError, match="must be positive"):
        infrared_spectrum(oscillating(), 0.0)


def test_names_do_not_overlap():
    found = infrared_spectrum(oscillating(), KELVIN, 10.0)
    crowd = found._replace(peaks=tuple((1000.0 + k, 1.0 - 0.001 * k) for k in range(200)))
    assert [x for x, _ in named_peaks(crowd)] == [1000.0, 1181.0]


def write(kind, path, run):
    time = run.interval * np.arange(1, len(run.dipole) + 1)
    if kind == "csv":
        head = (
            '#"Step","Time (ps)","Short Range (kJ/mole)","Dipole X (e*A)","Dipole Y (e*A)","Dipole Z (e*A)"'
        )
        table = np.column_stack([np.arange(len(time)), time, np.zeros(len(time)), run.dipole])
        np.savetxt(path, table, delimiter=",", header=head, comments="", fmt="%.10g")
    elif kind == "npz":
        np.savez(path, time_ps=time, dipole=run.dipole)
    else:
        head = "Time-averaged data for fix dipole\nTimeStep c_p[6] c_p[7] c_p[8]"
        np.savetxt(path, np.column_stack([np.round(2000 * time), run.dipole]), header=head, fmt="%.10g")
    return path


@pytest.mark.parametrize("kind", ["csv", "npz", "dipole"])
def test_every_kind_of_file(kind, tmp_path, capsys):
    run = oscillating(0.002, 1001)
    path = write(kind, tmp_path / f"run.{kind}", run)
    again = read_dipoles(path, 0.5)
    np.testing.assert_allclose(again.dipole, run.dipole, atol=1e-8)
    assert again.interval == pytest.approx(0.002)
    words = ["analyze", str(path), "--spectrum", "-o", str(tmp_path / "out"), "--temperature", "320"]
    assert cli.main([*words, "--timestep-fs", "0.5", "--resolution", "20"]) == 0
    assert "peaks at 3657, 1595 cm⁻¹" in capsys.readouterr().out
    assert (tmp_path / "out/spectrum.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "out/spectrum.json").read_text())
    assert document["temperature"] == 320
    assert document["resolution"] == pytest.approx(1 / (C_CM_PS * 0.002 * 500), rel=0.2)
    assert sorted(peak[0] for peak in document["peaks"]) == pytest.approx(list(LINES), abs=3)


def refused(path, timestep_fs=None):
    with pytest.raises(So3kError) as caught:
        read_dipoles(path, timestep_fs)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "dipole"])
@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_last_row_that_was_cut_is_left_out(kind, lost, tmp_path):
    run = oscillating(0.002, 101)
    path = write(kind, tmp_path / f"run.{kind}", run)
    path.write_text(path.read_text()[:-lost])
    with pytest.warns(So3kWarning, match=f"The last line of run.{kind} has no end"):
        found = read_dipoles(path, 0.5)
    np.testing.assert_allclose(found.dipole, run.dipole[:-1], atol=1e-8)


def test_bad_tables_are_refused(tmp_path):
    run = oscillating(rows=50)
    assert "--timestep-fs" in refused(write("dipole", tmp_path / "a.dipole", run))
    torn = run._replace(dipole=np.vstack([run.dipole, [[np.nan] * 3]]))
    assert "not finite" in refused(write("npz", tmp_path / "b.npz", torn))
    text = write("csv", tmp_path / "c.csv", run).read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join([*text[:10], *text[12:], ""]))
    assert "evenly spaced" in refused(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text("\n".join([*text[:2], ""]))
    assert "a time series" in refused(tmp_path / "e.csv")
    (tmp_path / "f.csv").write_text("a,b\n1,2\n")
    assert "no column" in refused(tmp_path / "f.csv")
    (tmp_path / "g.csv").write_text(text[0] + "\nx,y,z,u,v,w\n")
    assert "is not a table of dipoles" in refused(tmp_path / "g.csv")
    (tmp_path / "h.dipole").write_text("1 2 3\n4 5 6\n")
    assert "3 columns" in refused(tmp_path / "h.dipole", 0.5)
    np.savez(tmp_path / "i.npz", time_ps=np.arange(5.0), dipole=np.zeros((4, 3)))
    assert "do not fit" in refused(tmp_path / "i.npz")
    assert "there is no file" in refused(tmp_path / "j.csv")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--spectrum", "--top", "x.pdb"], "cannot be combined with --spectrum"),
        (["--spectrum", "--attention", "m"], "one at a time"),
        (["--resolution", "5"], "needs --spectrum"),
        (["--spectrum", "--frame", "1"], "needs --attention"),
    ],
)
def test_options_that_have_no_meaning(words, said, tmp_path, capsys):
    path = write("csv", tmp_path / "run.csv", oscillating(rows=50))
    assert cli.main(["analyze", str(path), *words, "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_rows_too_far_apart_are_warned_of():
    with pytest.warns(
        So3kWarning, match="are 10 fs apart and resolve up to 1668 cm⁻¹; .* every 4 fs or less"
    ):
        infrared_spectrum(oscillating(0.01, 2001), KELVIN)
