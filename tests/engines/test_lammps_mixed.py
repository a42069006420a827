"""pair_style so3k beside a force field: bonds hide no pairs, and what would be wrong is said."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from lammps_runs import (
    LONG_RANGE,
    SINGLE_POINT,
    bonded_data,
    lammps_frame,
    read_long_range,
    read_single_point,
    refused,
    run,
    setup,
    words,
    write_data,
)
from so3lr_toys import ions, so3lr_toy
from test_lammps_so3lr import FRAGMENTS
from test_lammps_so3lr import SYMBOLS as FOUR
from toys import loud, mixture, pytorch, save_toy, structure, toy_model

from so3k_md.model import So3krates
from so3k_md.structure.bonds import bond_radii, bonded
from so3k_md.structure.pairs import neighbor_pairs

INPUTS = Path(__file__).parents[2] / "simulations" / "lammps"
HIDING = ("", "special_bonds lj/coul 0 1 0.5\n", "special_bonds amber\n", "special_bonds lj/coul 1e-20 0 1\n")
RANKS = (1, 2, 4)
LJ = "pair_coeff {} lj/cut 0.01 2.5 4.0\n"


def bonds_of(atoms: Atoms) -> list[tuple[int, int]]:
    """By the one rule."""
    i, j, shifts = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 2.5, True)
    distances = np.linalg.norm(atoms.positions[j] - atoms.positions[i] + shifts @ atoms.cell.array, axis=1)
    radii = bond_radii(atoms.numbers)
    found = bonded(radii[i], radii[j], distances)
    return sorted({(int(a), int(b)) for a, b in zip(i[found], j[found], strict=True) if a != b})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, and data files with bonds."""
    folder = tmp_path_factory.mktemp("mixed")
    save_toy(folder / "toy.pt")
    save_toy(folder / "so3lr.pt", so3lr_toy())
    for name in ("triclinic", "small"):
        atoms = lammps_frame(structure(name))
        write_data(folder / "plain", atoms, molecules=[1] * len(atoms), wrap=True)
        text = (folder / "plain").read_text().replace("# molecular", "# bond")
        (folder / f"data.{name}").write_text(bonded_data(text, bonds_of(atoms)))
    atoms = lammps_frame(ions())
    write_data(folder / "data.ions", atoms, FOUR, atoms.arrays["fragment"], wrap=False)
    text = (folder / "data.ions").read_text()
    (folder / "data.bonded_ions").write_text(bonded_data(text, bonds_of(atoms)))
    return folder


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", ["triclinic", "small"])
def test_bonds_hide_no_pairs(folder, name, ranks):
    """Whatever weights they have; in the small box an atom sees its bonded neighbor in several images."""
    atoms = lammps_frame(structure(name))
    script = ""
    for k, special in enumerate(HIDING):
        before = f"atom_style bond\n{special}bond_style zero\n"
        script += "\nclear\n" + setup(atoms, f"data.{name}", "toy.pt", before=before)
        script += "bond_coeff *\n" + SINGLE_POINT.format(name=f"{name}{ranks}{k}")
    assert "the model includes bonded pairs that special_bonds excludes" in run(folder, script, ranks)
    expected = pytorch(atoms)
    for k in range(len(HIDING)):
        found = read_single_point(folder, f"{name}{ranks}{k}")
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-8)
        assert found.energy == pytest.approx(expected.energy.item(), rel=1e-10)
        np.testing.assert_allclose(found.virial[:3], np.diag(expected.virial[0]), atol=1e-7)


def test_molecules_by_template_need_weights(folder):
    """Whose bonded neighbors the plugin cannot read: the weight that the message names is right."""
    atoms = molecule("H2O")
    rows = {"Types": [1 if s == "H" else 3 for s in atoms.symbols], "Coords": atoms.positions}
    text = "water\n\n3 atoms\n2 bonds\n"
    for name, values in rows.items():
        lines = (f"{k + 1} " + " ".join(map(str, np.atleast_1d(row))) for k, row in enumerate(values))
        text += f"\n{name}\n\n" + "\n".join(lines) + "\n"
    text += "\nBonds\n\n1 1 1 2\n2 1 1 3\n\nSpecial Bond Counts\n\n1 2 0 0\n2 1 1 0\n3 1 1 0\n"
    (folder / "water").write_text(text + "\nSpecial Bonds\n\n1 2 3\n2 1 3\n3 1 2\n")
    commands = (
        "units metal\nmolecule w water\natom_style template w\nregion box block 0 12 0 12 0 12\n"
        "create_box 3 box bond/types 1\ncreate_atoms 0 single 6 6 6 mol w 1\nmass * 1\nbond_style zero\n"
        "bond_coeff *\npair_style so3k precision float64 device cpu\npair_coeff * * toy.pt H C O\n"
    )
    weight = re.search(r"a weight of (\S+) in place", refused(folder, commands + "run 0\n"))[1]
    weights = f"special_bonds lj/coul {weight} {weight} {weight}\nrun 0\nprint 'pe $(pe:%.15g)'\n"
    assert words(run(folder, commands + weights, 2), "pe") == pytest.approx(
        [pytorch(atoms).energy.item()], rel=1e-9
    )


@pytest.mark.parametrize("ranks", RANKS)
def test_bonds_hide_no_pairs_of_charges(folder, ranks):
    """Those are listed once over all ranks."""
    script = ""
    for name, before in (
        ("ions", "atom_style molecular\n"),
        ("bonded_ions", "atom_style molecular\nbond_style zero\n"),
    ):
        style = f"so3k precision float64 device cpu coulomb shifted cutoff_lr 6{FRAGMENTS}"
        script += "\nclear\n" + setup(ions(), f"data.{name}", "so3lr.pt", style, before=before, symbols=FOUR)
        script += ("bond_coeff *\n" if "zero" in before else "") + LONG_RANGE.format(name=f"{name}{ranks}")
        script += SINGLE_POINT.format(name=f"{name}{ranks}")
    run(folder, script, ranks)
    plain, bound = (read_single_point(folder, f"{name}{ranks}") for name in ("ions", "bonded_ions"))
    np.testing.assert_allclose(bound.forces, plain.forces, rtol=0, atol=1e-10)
    parts = [read_long_range(folder, f"{name}{ranks}").parts for name in ("ions", "bonded_ions")]
    np.testing.assert_allclose(parts[1], parts[0], rtol=1e-12)


def test_two_models_each_for_its_molecules(folder):
    """Terms of the force field go on with their weights; neither model sees the other's atoms."""
    atoms, of = mixture("periodic")
    first = of < 2
    symbols = ("H", "C", "O", "H", "O")
    types = [f"{'ABC'['HCO'.index(s)]}{int(one)}" for s, one in zip(atoms.symbols, first, strict=True)]
    kinds = ["A1", "B1", "C1", "A0", "C0"]
    text = _typed(folder, atoms, of + 1, [kinds.index(t) + 1 for t in types], symbols)
    (folder / "data.two").write_text(bonded_data(text, bonds_of(atoms)))
    head = (
        "units metal\natom_style molecular\nbond_style harmonic\nread_data data.two\nbond_coeff 1 0.5 1.1\n"
    )
    models = "pair_coeff * * so3k 1 toy.pt H C O NULL NULL\npair_coeff * * so3k 2 toy.pt NULL NULL NULL H O\n"
    so3k = "so3k precision float64 device cpu"
    both = f"{head}pair_style hybrid/overlay {so3k} {so3k} lj/cut 4.0\n{models}{LJ.format('* *')}"
    alone = f"clear\n{head}pair_style lj/cut 4.0\n{LJ.format('* *').replace('lj/cut ', '')}"
    said = run(folder, both + SINGLE_POINT.format(name="two") + alone + SINGLE_POINT.format(name="none"), 2)
    assert "connect atoms of the model only, and the force field adds their energies" in said
    two, none = (read_single_point(folder, name) for name in ("two", "none"))
    parts = [pytorch(atoms[select]) for select in (first, ~first)]
    assert two.energy - none.energy == pytest.approx(sum(part.energy.item() for part in parts), rel=1e-10)
    for part, select in zip(parts, (first, ~first), strict=True):
        np.testing.assert_allclose((two.forces - none.forces)[select], part.forces, atol=1e-8)


def _typed(folder: Path, atoms: Atoms, molecules, types: list[int], symbols: tuple[str, ...]) -> str:
    """A data file in which atoms of one element have several types."""
    write_data(folder / "untyped", atoms, ("H", "C", "O"), molecules)
    head, body = (folder / "untyped").read_text().split("Masses")
    masses = "\n".join(f"{k + 1} {dict(H=1.008, C=12.011, O=15.999)[s]}" for k, s in enumerate(symbols))
    rows = [line.split() for line in body.split("Atoms # molecular")[1].strip().splitlines()]
    lines = "\n".join(
        " ".join([*row[:2], str(kind), *row[3:]]) for row, kind in zip(rows, types, strict=True)
    )
    head = head.replace("3 atom types", f"{len(symbols)} atom types")
    return f"{head}Masses\n\n{masses}\n\nAtoms # molecular\n\n{lines}\n"


@pytest.mark.parametrize("ranks", RANKS)
def test_cut_bonds_are_refused_with_their_atoms(folder, ranks):
    """A methyl group of ethanol by force field: of its bond to the rest the model sees one end."""
    atoms = molecule("CH3CH2OH")
    atoms.cell, atoms.pbc = np.eye(3) * 12, True
    types = [2, 4, 3, 1, 5, 5, 1, 1, 1]  # carbon 1 and its hydrogens are of the model, and the oxygen
    text = _typed(folder, atoms, [1] * 9, types, ("H", "C", "O", "C", "H"))
    (folder / "data.cut").write_text(bonded_data(text, bonds_of(atoms)))
    script = "units metal\natom_style molecular\nbond_style zero\nread_data data.cut\nbond_coeff *\n"
    script += "pair_style hybrid so3k precision float64 device cpu{} lj/cut 4.0\n"
    script += "pair_coeff * * so3k toy.pt H C O NULL NULL\n" + LJ.format("1*5 4*5") + "run 0\n"
    error = refused(folder, script.format(""), ranks)
    assert re.match(
        r"so3k: 2 bond\(s\) join atoms of the model to other atoms, such as atom 1 of the model to atom 2: "
        ".+ select whole molecules, or give 'cut_bonds allow'",
        error,
    ), error
    run(folder, script.format(" cut_bonds allow"), ranks)


@pytest.mark.parametrize("coul", ["long", "cut"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_example_is_the_model_in_its_solvent(tmp_path, coul, ranks):
    """What is left without the model is the force field, and the rest is the molecule by itself."""
    script = (INPUTS / "in.ethanol_in_water").read_text()
    script = script.replace("run ${steps}", "").replace("write_restart", "#")
    dump = "dump f all custom 1 {}.f id fx fy fz\ndump_modify f sort id format float %.12g\nrun 0\n"
    dump += "print '{} $(pe:%.12g) $(ebond:%.12g) $(eangle:%.12g) $(ecoul+elong:%.12g) $(c_ml:%.12g)'\n"
    fields = {"coul": coul, "precision": "float64", "relax": 0, "kelvin": 0.001}
    both = "".join(f"variable {name} index {value}\n" for name, value in fields.items()) + script
    mm = both.replace("compute ml all pair so3k", "compute ml all pair zero")
    mm = mm.replace('"so3k precision ${precision}"', '"zero 6.5"')
    mm = re.sub(r"pair_coeff \* \* so3k.*", "pair_coeff 1*4 1*4 zero", mm)
    shake = "displace_atoms all random 0.05 0.05 0.05 3\n"
    text = "clear\n".join(
        f"{body}{shake}{dump.format(name, name)}" for name, body in (("both", both), ("mm", mm))
    )
    (tmp_path / "data.ethanol_in_water").write_text((INPUTS / "data.ethanol_in_water").read_text())
    model = str(INPUTS.parents[1] / "so3k_md" / "pretrained" / "ethanol-rmd17.pt")
    said = run(tmp_path, text.replace("../../so3k_md/pretrained/ethanol-rmd17.pt", model), ranks)
    assert "kspace_style" not in "".join(re.findall("WARNING: so3k.*", said))
    both, mm = words(said, "both"), words(said, "mm")
    assert both[0] == pytest.approx(mm[0] + both[4], abs=1e-6)
    assert both[1:4] == pytest.approx(mm[1:4], rel=1e-9)
    assert 10 < both[1] < 2000
    np.testing.assert_allclose(_forces(tmp_path, "both")[9:], _forces(tmp_path, "mm")[9:], atol=1e-8)


def _forces(folder: Path, name: str) -> np.ndarray:
    """Of the first frame of a dump."""
    lines = (folder / f"{name}.f").read_text().splitlines()[9:]
    return np.array([line.split()[1:] for line in lines], dtype=float)


@pytest.mark.parametrize("model", ["toy", "one_layer"])
def test_heat_flux_is_questioned(folder, model):
    """Only with one layer the virials of centroid/stress/atom give it."""
    if model == "one_layer":
        save_toy(
            folder / "one_layer.pt", loud(So3krates(replace(toy_model().config, layers=1), [1, 6, 8], 3))
        )
    atoms = lammps_frame(structure("triclinic"))
    write_data(folder / "data.box", atoms)
    script = setup(atoms, "data.box", f"{model}.pt") + "run 0\n"
    for stress in ("centroid/stress/atom", "stress/atom"):
        flux = "compute ke all ke/atom\ncompute pe all pe/atom\n"
        flux += f"compute s all {stress} NULL virial\ncompute j all heat/flux ke pe s\n"
        questioned = "compute heat/flux does not give the heat flux of this model" in run(
            folder, script + flux + "run 0\n"
        )
        assert questioned == (model == "toy" or stress == "stress/atom")
    assert "heat flux" not in run(folder, script)
