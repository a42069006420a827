"""The LAMMPS plugin on a device: as on the CPU on any number of ranks, with few reads in a step.

It needs the plugin built by cmake with -DSO3K_TEST_DEVICE=ON, in the folder that SO3K_TEST_PLUGIN names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lammps_runs import lammps_frame, setup, write_data
from so3lr_toys import so3lr_toy, water_dimer, waters
from toys import mixture, nonlocal_toy, save_toy, structure, toy_model

from so3k_md.builds import tool
from so3k_md.needs import needs_of

FOLDER = os.environ.get("SO3K_TEST_PLUGIN", "")
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="SO3K_TEST_PLUGIN names no plugin built with -DSO3K_TEST_DEVICE=ON"
)

RUNNING = """
thermo 1000
velocity all create 100 1
fix move all nve
timestep 0.0002
neigh_modify delay 1000 every 1000 check no
"""
CHARGES = ("H", "C", "N", "O")


def grouped(kind):
    atoms, molecules = mixture("open" if kind == "sphc" else "triclinic")
    return nonlocal_toy(kind), atoms, molecules + 1


CASES = {
    "local": lambda: (toy_model(), structure("triclinic"), None, ""),
    "charges, open": lambda: (so3lr_toy(), water_dimer(), None, ""),
    "charges, shifted": lambda: (so3lr_toy(), waters(), None, " coulomb shifted+self cutoff_lr 6"),
    "charges, box": lambda: (so3lr_toy(), waters(), None, " cutoff_lr 6"),
    "sphc": lambda: (*grouped("sphc"), ""),
    "efa": lambda: (*grouped("efa"), ""),
    "waves": lambda: (*grouped("reciprocal"), ""),
}


def steps(place, name, device, ranks):
    """What each rank says of a few steps."""
    model, atoms, molecules, words = CASES[name]()
    atoms, symbols = lammps_frame(atoms), CHARGES if "charges" in name else ("H", "C", "O")
    place.mkdir(exist_ok=True)
    save_toy(place / "model.pt", model)
    write_data(place / "data", atoms, symbols, molecules)
    style = f"so3k precision float64 device {device}{words}"
    before = (
        "atom_modify map array\n" if molecules is None else "atom_style molecular\natom_modify map array\n"
    )
    commands = setup(atoms, "data", "model.pt", style, before=before, symbols=symbols) + RUNNING
    (place / f"in.{device}").write_text(commands)
    words = [
        sys.executable,
        "-W",
        "ignore",
        str(HERE / "lammps_on_device.py"),
        FOLDER,
        f"in.{device}",
        device,
    ]
    run = subprocess.run(
        [tool("mpirun", "lammps"), "-np", str(ranks), *words], cwd=place, capture_output=True, text=True
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return [json.loads((place / f"{device}.{rank}").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_cpu(name, ranks, tmp_path):
    expected, found = steps(tmp_path, name, "cpu", ranks), steps(tmp_path, name, "auto", ranks)
    assert found[0]["energy"] == pytest.approx(expected[0]["energy"], rel=1e-11)
    np.testing.assert_allclose(found[0]["forces"], expected[0]["forces"], atol=1e-9)
    assert all(rank["reads"] == [] for rank in expected)
    if ranks == 1 and needs_of(CASES[name]()[0]).nonlocal_kind == "none":
        # positions to the device, results to the host; waves of the lattice sum are made at each step
        reads = {what: n for what, where, n in found[0]["reads"] if "kspace" not in where}
        assert reads == {"copy to the device": 1.0, "copy to the host": 1.0}
