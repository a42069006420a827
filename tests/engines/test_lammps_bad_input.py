"""What users get wrong with pair_style so3k: one clear line, and no rank is left waiting."""

import os
import re
import shutil

import pytest
import torch
from lammps_runs import lammps_frame, refused, setup, write_data
from small_models import REFERENCE
from toys import save_toy, structure

from so3k_md.export.contract import FORMAT_VERSION
from so3k_md.export.torchscript import archive
from so3k_md.needs import with_needs

GOOD = "pair_coeff * * toy.pt H C O"
PUSH = """variable infinity equal 1e308*10
fix push all addforce v_infinity 0 0
fix nve all nve
neigh_modify check no delay 9 every 9
"""
ABSENT = (
    "so3k: there is no model file absent.pt: check the path in pair_coeff; bundled models: "
    "cumulene-efa, cumulene-local, cumulene-sphc, ethanol-rmd17"
)
FOLDER = "so3k: . is a folder: name the model file in it"
BOX = "so3k: the box {}: correct it in the data file or by change_box, .+"
SQUEEZED = "change_box all x scale {0} y scale {0} z scale {0} remap\nrun"
NEWTON = "pair_style so3k needs 'newton on': forces on ghost atoms return to their owners"
STARS = r"Pair_coeff must start with \* \* for pair style so3k"


def unusable(file: str, reason: str) -> str:
    """The answer to a file that is not a model for this plugin."""
    return rf"so3k cannot use {file} \({reason}\): write a model with 'so3k-md export CHECKPOINT -o {file}'"


def unsealed(file: str) -> str:
    """The answer to a file that so3k-md did not write, or that lost its end."""
    return unusable(file, "it does not end with the seal of so3k-md: .+ older version, .+ converts")


COUNT = r"pair_coeff of so3k has {} elements for 3 atom types: give one symbol \(or NULL\) per type"
UNKNOWN = "so3k model toy.pt does not know element {} of atom type 3: it knows H C O"
KEYWORD = (
    r"pair_style so3k does not know '{}': use precision float32\|float64, device auto\|cpu\|cuda, "
    r"groups molecule\|all, max_group N, coulomb kspace\|shifted\|shifted\+self, cutoff_lr A \(above 2\), "
    r"charge Q, spin S, fragments all\|molecule, fragment_charge ID Q, "
    r"cut_bonds refuse\|allow"
)
FORMER = f"its format is 1, this plugin reads {FORMAT_VERSION}"
# what is done to a good input: the word, what stands in its place, and the answer
CASES = {
    "missing file": ("toy.pt", "absent.pt", ABSENT),
    "folder": ("toy.pt", ".", FOLDER),
    "squeezed box": (
        "run",
        SQUEEZED.format(0.4),
        BOX.format(r"has 0\.\d\d A\^3 for each of its 72 atoms, .+"),
    ),
    "tiny box": ("run", SQUEEZED.format(0.05), BOX.format(r"repeats after 0\.\d\d A, .+")),
    "truncated file": ("toy.pt", "truncated.pt", unsealed("truncated.pt")),
    "empty file": ("toy.pt", "empty.pt", unsealed("empty.pt")),
    "a text": ("toy.pt", "data.nan", unsealed("data.nan")),
    "weights without a model": ("toy.pt", "weights.pt", unsealed("weights.pt")),
    "flipped bit": ("toy.pt", "flipped.pt", unusable("flipped.pt", "it is damaged: .+ SHA-256 .+")),
    "foreign model": ("toy.pt", "foreign.pt", unsealed("foreign.pt")),
    "sealed foreign model": ("toy.pt", "sealed.pt", unusable("sealed.pt", "it is not a model of so3k-md")),
    "a pipe": ("toy.pt", "pipe.pt", "so3k: pipe.pt is not a file: name a model file"),
    "other format": ("toy.pt", "former.pt", unusable("former.pt", FORMER)),
    "format 5": (
        "toy.pt",
        "format5.pt",
        unusable("format5.pt", "it has an old format: convert it with .+"),
    ),
    "unknown element": ("H C O", "H C N", UNKNOWN.format("N")),
    "no element": ("H C O", "H C oxygen", UNKNOWN.format("oxygen")),
    "too few elements": ("H C O", "H C", COUNT.format(2)),
    "too many elements": ("H C O", "H C O O", COUNT.format(4)),
    "single types": ("* *", "1 1", STARS),
    "NULL without hybrid": ("H C O", "H C NULL", "All pair coeffs are not set.*"),
    "no coefficients": ("pair_coeff * * toy.pt H C O", "", "All pair coeffs are not set.*"),
    "newton off": ("read_data", "newton off\nread_data", NEWTON),
    "units": ("units metal", "units lj", "pair_style so3k works in 'units metal' and 'units real', not 'lj'"),
    "keyword": ("precision float64", "accuracy high", KEYWORD.format("accuracy high")),
    "value": ("precision float64", "precision float16", KEYWORD.format("precision float16")),
    "no value": ("device cpu", "device", KEYWORD.format("device")),
    "NaN in the data": ("data.box", "data.nan", "Expected floating point parameter instead of 'nan'.*"),
    "infinite positions": (
        "run",
        PUSH + "run",
        "so3k failed at step 1: positions are not finite: minimise .+",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good model and data file, and every bad one."""
    folder = tmp_path_factory.mktemp("bad")
    save_toy(folder / "toy.pt")
    good = (folder / "toy.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(good[: len(good) // 2])
    (folder / "empty.pt").write_bytes(b"")
    middle = len(good) // 2
    (folder / "flipped.pt").write_bytes(good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :])
    os.mkfifo(folder / "pipe.pt")
    linear = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(linear, str(folder / "foreign.pt"))
    (folder / "sealed.pt").write_bytes(archive(linear))
    torch.save({"weight": torch.zeros(2)}, folder / "weights.pt")
    shutil.copy(REFERENCE / "format5.pt", folder)
    former = torch.jit.load(str(folder / "toy.pt"))
    with_needs(former, format_version=1)
    (folder / "former.pt").write_bytes(archive(former))
    atoms = lammps_frame(structure("triclinic"))
    write_data(folder / "data.box", atoms)
    text = (folder / "data.box").read_text()
    first = re.search(r"^1 .*$", text.split("# atomic")[1], re.M)[0]
    (folder / "data.nan").write_text(text.replace(first, "1 2 nan 0.0 0.0"))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(folder, case):
    good, bad, message = CASES[case]
    script = setup(structure("triclinic"), "data.box", "toy.pt") + "run 2\n"
    assert good in script
    error = refused(folder, script.replace(good, bad))
    assert re.fullmatch(message, error), error
