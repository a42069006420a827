"""What users get wrong with charges in LAMMPS: one clear line, and what remedies it."""

import re

import pytest
from ase.data import covalent_radii
from lammps_runs import lammps_frame, refused, run, setup, write_data
from so3lr_toys import ions, so3lr_toy
from test_lammps_so3lr import FRAGMENTS, SYMBOLS
from toys import save_toy, toy_model

FORMS = "coulomb shifted cutoff_lr 6"
PARTLY = (
    "so3k: the box is periodic along some axes only, which coulomb kspace does not support: use "
    r"'boundary p p p', a fully open box, or pair_style so3k ... coulomb shifted\+self"
)
NO_IDS = (
    "so3k: fragments molecule needs molecule ids, which atom_style atomic does not have: use atom_style "
    "full, bond or molecular"
)
NO_TOTALS = (
    "so3k model unnamed does not use the total charge: leave out charge, spin, fragments and fragment_charge"
)
NO_CHARGES = "so3k model unnamed has no electrostatics: leave out coulomb and cutoff_lr"
SUM = r"so3k: the fragment charges add up to \+0 e, the total charge is \+2 e: correct one"
HALF = r"so3k: fragment_charge 7 \+0.5 is not a whole number: give that of an ion or a molecule"
WHOLE = r"so3k: a charge of \+0.3 e is not a whole number: give that of all ions and molecules"
ABSENT = "so3k: fragment_charge names molecule 9, which no atom has: correct it"
ALONE = (
    "so3k: with fragments molecule each atom needs a molecule id, and some have the id 0: number them in the "
    "data file or by 'set'"
)
WITHOUT = "so3k: fragment_charge is given without fragments: add 'fragments molecule'"
PARITY = "so3k: 63 electrons cannot have 0 unpaired ones: correct charge or spin"
PIECE = r"so3k: molecule 2: 23 electrons cannot have 0 unpaired ones: correct its charge or its atoms"
ABSURD = r"so3k: {}a charge of {} e would leave {} electrons to nuclei of \+{} e: correct the charge"
CHARGES = "fragment_charge 2 -1 fragment_charge 7 1"
SPIN = "so3k: spin {} is impossible: give 0, 0.5, 1, ..."
SINGLETS = "so3k: spin {}, but model unnamed was trained on singlets only: leave it out"
UNKNOWN = ".*does not know '{}': use precision .*"
# what is done to a good input: the word, what stands in its place, and the answer
CASES = {
    "partly periodic": (FORMS, "coulomb kspace", PARTLY),
    "no molecule ids": ("molecular\nread_data data.ions", "atomic\nread_data data.atomic", NO_IDS),
    "id 0": ("data.ions", "data.alone", ALONE),
    "sum": (FORMS, f"{FORMS} charge 2", SUM),
    "part of a charge": ("fragment_charge 7 1", "fragment_charge 7 0.5", HALF),
    "part of the charge": (FRAGMENTS, " charge 0.3", WHOLE),
    "absent molecule": ("fragment_charge 7", "fragment_charge 9", ABSENT),
    "no fragments": ("fragments molecule", "", WITHOUT),
    "parity": ("fragment_charge 7 1", "fragment_charge 7 2", PARITY),
    "parity of fragments": (CHARGES, "", PIECE),
    "fewer electrons than none": (FRAGMENTS, " charge 200", ABSURD.format("", r"\+200", -136, 64)),
    "more than anions have": (
        FRAGMENTS,
        " charge -66",
        ABSURD.format("", "-66", 130, 64),
    ),
    "of a fragment": (
        CHARGES,
        "fragment_charge 2 -13 fragment_charge 7 13",
        ABSURD.format("molecule 7: ", r"\+13", -2, 11),
    ),
    "doublet": (FORMS, f"{FORMS} spin 0.5", SINGLETS.format(0.5)),
    "spin": (FORMS, f"{FORMS} spin 0.3", SPIN.format(0.3)),
    "negative spin": (FORMS, f"{FORMS} spin -1", SPIN.format(-1)),
    "triplet": (FORMS, f"{FORMS} spin 1", SINGLETS.format(1)),
    "local model": (f"{FORMS}{FRAGMENTS}", "charge 1", NO_TOTALS),
    "local model without charges": (f"{FORMS}{FRAGMENTS}", FORMS, NO_CHARGES),
    "form": ("shifted", "ewald", UNKNOWN.format("coulomb ewald")),
    "cutoff": ("cutoff_lr 6", "cutoff_lr 2", UNKNOWN.format("cutoff_lr 2")),
    "charge": (FRAGMENTS, " charge much", UNKNOWN.format("charge much")),
    "fragments": ("fragments molecule", "fragments some", UNKNOWN.format("fragments some")),
    "half a fragment": (
        " fragment_charge 7 1",
        " fragment_charge 7",
        UNKNOWN.format("fragment_charge 7"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good models and data files, and bad ones."""
    folder = tmp_path_factory.mktemp("bad-so3lr")
    save_toy(folder / "toy.pt", so3lr_toy())
    save_toy(folder / "local.pt", toy_model())
    atoms = lammps_frame(ions())
    molecules = atoms.arrays["fragment"]
    write_data(folder / "data.ions", atoms, SYMBOLS, molecules, wrap=False)
    write_data(folder / "data.atomic", atoms, SYMBOLS)
    write_data(folder / "data.alone", atoms, SYMBOLS, [0, *molecules[1:]], wrap=False)
    return folder


def commands(case="") -> str:
    """An input that is good, in a box that is periodic along one axis."""
    style = f"so3k precision float64 {FORMS}{FRAGMENTS}"
    text = setup(ions(), "data.ions", "toy.pt", style, before="atom_style molecular\n", symbols=SYMBOLS)
    text = text.replace("boundary f f f", "boundary p f f")
    if not case.startswith("local"):
        return text
    return text.replace("toy.pt H C N O", "local.pt H C C O")


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(folder, case):
    good, bad, message = CASES[case]
    text = commands(case)
    assert good in text
    error = refused(folder, text.replace(good, bad) + "run 0\n")
    assert re.fullmatch(message, error), error


def test_the_input_itself_is_good(folder):
    """Shifted forms serve boxes that are periodic along some axes, and the charge may be said twice."""
    run(folder, commands().replace(FORMS, f"{FORMS} charge 0 spin 0") + "run 0\n", 2)


def test_what_a_local_model_has_no_charges_for(folder):
    text = commands("local").replace(f"{FORMS}{FRAGMENTS}", "") + "fix q all pair 1 so3k charges 0\nrun 0\n"
    # LAMMPS stops each rank by itself here: of two, one may be gone before the other has spoken
    assert "extract" in refused(folder, text, ranks=1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_too_close_are_warned_of(folder, ranks):
    """Also where no rank owns both of them."""
    atoms = lammps_frame(ions())
    assert "closer than atoms in training data" not in run(folder, commands() + "run 0\n", ranks)
    atoms.positions[-1] = atoms.positions[0] + [0.3, 0, 0]
    write_data(folder / "data.close", atoms, SYMBOLS, atoms.arrays["fragment"], wrap=False)
    said = run(folder, commands().replace("data.ions", "data.close") + "run 0\n", ranks)
    first, last, share = re.search(
        r"so3k: atoms (\d+) and (\d+) are 0\.30 A apart, (0\.\d\d) of the sum of their covalent radii", said
    ).groups()
    assert {int(first), int(last)} == {1, len(atoms)}
    assert float(share) == round(0.3 / covalent_radii[atoms.numbers[[0, -1]]].sum(), 2)
