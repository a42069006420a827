"""Trajectories, topologies and logs that cannot be analysed."""

import re
from pathlib import Path

import pytest
from spoil import edit, truncate

PDB = """ATOM      1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O
ATOM      2  H1  HOH A   1       0.960   0.000   0.000  1.00  0.00           H
ATOM      3  H2  HOH A   1      -0.240   0.930   0.000  1.00  0.00           H
END
"""
DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS ff ff ff
0 9
0 9
0 9
ITEM: ATOMS id type xu yu zu
1 1 0 0 0
2 2 0.96 0 0
3 2 -0.24 0.93 0
"""


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (None, "absent.dcd --top top.pdb", "absent.dcd"),
        (None, "run.lammpstrj --top absent.pdb", "absent.pdb"),
        (None, "run.lammpstrj", "run.lammpstrj.*--top"),
        (lambda: truncate("run.lammpstrj", 0), "run.lammpstrj --top top.pdb", "run.lammpstrj"),
        (lambda: truncate("run.lammpstrj", 0.9), "run.lammpstrj --top top.pdb", "run.lammpstrj"),
        (lambda: edit("run.lammpstrj", "xu yu zu", "xs ys zs"),
         "run.lammpstrj --top top.pdb", "xs.*xu yu zu"),
        (lambda: edit("top.pdb", "ATOM      3", "REMARK    3"),
         "run.lammpstrj --top top.pdb", "run.lammpstrj has 3 atoms, the topology has 2"),
        (None, "run.lammpstrj --top top.pdb --log absent.log", "absent.log"),
        (None, "run.lammpstrj --top top.pdb --stride 0", "stride"),
        (None, "run.lammpstrj --top top.pdb --timestep-fs -1", "-1.*positive"),
        (None, "run.lammpstrj --top top.pdb -o new --json new/report.html", "another output"),
        (None, "run.lammpstrj --top top.pdb --overwrite --json run.lammpstrj", "an input"),
        (None, "water.xyz --top top.pdb -o model.pt", "model.pt is a file"),
        (None, "run.lammpstrj --top top.pdb -o absent/deeper/report", "absent"),
    ],
)  # fmt: skip
def test_trajectory(spoil, arguments, said, refused):
    Path("top.pdb").write_text(PDB)
    Path("run.lammpstrj").write_text(DUMP)
    if spoil:
        spoil()
    assert re.search(said, refused(f"analyze {arguments}"))
