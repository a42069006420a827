"""Files become frames in eV and Å, or are refused with file, frame, key and remedy."""

import itertools

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from so3k_md.data import read_frames, require_elements
from so3k_md.data.write import write_extxyz
from so3k_md.errors import So3kError, So3kWarning

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
LATTICE = 'Lattice="4 0 0 0 5 0 0 0 6"'
KCAL = ase.units.kcal / ase.units.mol


def md17(**changes):
    """Three frames of water in the arrays of MD17."""
    rng = np.random.default_rng(3)
    arrays = {
        "z": np.array([8, 1, 1]),
        "R": WATER + 0.1 * rng.normal(size=(3, 3, 3)),
        "E": rng.normal(size=3),
        "F": rng.normal(size=(3, 3, 3)),
    } | changes
    return {key: value for key, value in arrays.items() if value is not None}


def write_npz(folder, **changes):
    path = folder / "frames.npz"
    np.savez(path, **md17(**changes))
    return path


COLUMNS = "Properties=species:S:1:pos:R:3:forces:R:3"


def block(comment="Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5", rows=None, count=None):
    rows = ["O 0 0 0 0.1 0.2 0.3", "H 0.96 0 0 0 0 0", "H -0.24 0.93 0 0 0 0"] if rows is None else rows
    return "\n".join([str(len(rows) if count is None else count), comment, *rows]) + "\n"


def write_xyz(folder, *blocks):
    path = folder / "frames.xyz"
    path.write_text("".join(blocks))
    return path


@pytest.mark.parametrize("names", [("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces")])
def test_npz_under_its_usual_names(tmp_path, names):
    arrays = md17()
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays.values(), strict=True)))
    frames = read_frames(tmp_path / "a.npz")
    assert [frame.place for frame in frames] == [0, 1, 2]
    for frame, r, e, f in zip(frames, arrays["R"], arrays["E"], arrays["F"], strict=True):
        assert frame.numbers.tolist() == [8, 1, 1]
        assert frame.energy == e
        assert frame.cell is None
        assert frame.stress is None
        np.testing.assert_array_equal(frame.positions, r)
        np.testing.assert_array_equal(frame.forces, f)


def test_units_are_converted_once(tmp_path):
    arrays = md17(E=np.array([[1.0], [2.0], [3.0]]))  # the shape of the original MD17
    np.savez(tmp_path / "a.npz", **arrays)
    frame = read_frames(tmp_path / "a.npz", energy_unit="kcal/mol", length_unit="Bohr")[1]
    assert frame.energy == pytest.approx(2 * KCAL, rel=1e-15)
    np.testing.assert_allclose(frame.positions, arrays["R"][1] * ase.units.Bohr, rtol=1e-15)
    np.testing.assert_allclose(frame.forces, arrays["F"][1] * KCAL / ase.units.Bohr, rtol=1e-14)
    assert pytest.approx(0.0433641, rel=1e-5) == KCAL


def test_padded_atoms_are_masked(tmp_path):
    z = np.array([[8, 1, 1], [8, 1, 0], [2, 0, 0]])
    frames = read_frames(write_npz(tmp_path, z=z))
    assert [frame.numbers.tolist() for frame in frames] == [[8, 1, 1], [8, 1], [2]]
    assert [frame.forces.shape for frame in frames] == [(3, 3), (2, 3), (1, 3)]
    np.testing.assert_array_equal(frames[1].positions, md17()["R"][1, :2])


def test_npz_with_cell_and_stress(tmp_path):
    cell, stress = np.diag([10.0, 11.0, 12.0]), np.arange(18.0).reshape(3, 6)
    frame = read_frames(write_npz(tmp_path, cell=cell, stress=stress))[1]
    assert frame.pbc.all()
    assert frame.volume == pytest.approx(1320.0)
    np.testing.assert_array_equal(frame.stress, [[6, 11, 10], [11, 7, 9], [10, 9, 8]])
    per_frame = read_frames(
        write_npz(tmp_path, cell=np.stack([cell, 2 * cell, cell]), pbc=np.array([True, True, False]))
    )
    assert per_frame[1].cell[2, 2] == 24.0
    assert per_frame[1].pbc.tolist() == [True, True, False]
    two = {key: md17()[key][:2] for key in ("R", "E", "F")}
    cells = np.stack([cell, np.zeros((3, 3))])
    mixed = read_frames(write_npz(tmp_path, **two, cell=cells, pbc=np.array([True, False])))
    assert [frame.pbc.tolist() for frame in mixed] == [[True] * 3, [False] * 3]


def test_extended_xyz_with_ase_names(tmp_path):
    atoms = Atoms("OH2", WATER, cell=[9, 8, 7], pbc=True)
    stress = np.array([1, 2, 3, 4, 5, 6]) * 1e-3
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=WATER * 2, stress=stress)
    ase.io.write(tmp_path / "a.xyz", [atoms, Atoms("He")])
    full, bare = read_frames(tmp_path / "a.xyz")
    assert full.energy == -3.0
    np.testing.assert_allclose(full.forces, WATER * 2)
    np.testing.assert_allclose(full.stress, np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]) * 1e-3)
    assert (bare.energy, bare.stress, bare.cell) == (None, None, None)
    assert bare.forces.tolist() == [[0.0, 0.0, 0.0]], "the force on an isolated atom is zero by symmetry"


def test_extended_xyz_with_other_names(tmp_path):
    stress = "1 6 5 6 2 4 5 4 3"
    comment = f'{LATTICE} Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=2 REF_stress="{stress}"'
    path = write_xyz(tmp_path, block(comment))
    with pytest.warns(So3kWarning, match="REF_energy, REF_forces, REF_stress look like labels"):
        assert read_frames(path)[0].energy is None
    frame = read_frames(path, "REF_energy", "REF_forces", "REF_stress")[0]
    assert frame.energy == 2.0
    assert frame.forces[0].tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_array_equal(frame.stress, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


@pytest.mark.parametrize("key", ["virial", "REF_virials"])
def test_virial_becomes_stress(tmp_path, key):
    comment = f'{LATTICE} Properties=species:S:1:pos:R:3:forces:R:3 energy=2 {key}="1 6 5 6 2 4 5 4 3"'
    path = write_xyz(tmp_path, block(comment))
    frame = read_frames(path, stress_key=key)[0]
    np.testing.assert_allclose(frame.stress, -np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]) / 120.0)
    if key == "virial":
        np.testing.assert_array_equal(read_frames(path)[0].stress, frame.stress)


def test_other_formats_of_ase(tmp_path):
    ase.io.write(tmp_path / "a.traj", [Atoms("OH2", WATER), Atoms("N2", WATER[:2])])
    assert [len(frame.numbers) for frame in read_frames(tmp_path / "a.traj")] == [3, 2]


def test_written_structures_come_back_to_the_last_bit(tmp_path):
    path = write_npz(
        tmp_path, cell=np.diag([10.0, 11.0, 12.0]) / 3, R=md17()["R"] / 3, z=np.array([17, 1, 9])
    )
    frames = read_frames(path)
    entries = [(f, {"energy": f.energy / 7, "stress": f.cell}, {"forces": f.forces / 7}) for f in frames]
    write_extxyz(tmp_path / "b.xyz", entries)
    for frame, atoms in zip(frames, ase.io.read(tmp_path / "b.xyz", ":"), strict=True):
        assert atoms.numbers.tolist() == [17, 1, 9]
        assert atoms.pbc.all()
        assert atoms.get_potential_energy() == frame.energy / 7
        assert (atoms.positions == frame.positions).all()
        assert (atoms.cell.array == frame.cell).all()
        assert (atoms.get_forces() == frame.forces / 7).all()
        assert (atoms.get_stress(voigt=False) == frame.cell).all()


def test_elements_are_checked(tmp_path):
    frames = read_frames(write_npz(tmp_path, z=np.array([[8, 1, 1], [8, 1, 17], [8, 1, 1]])))
    require_elements(frames, [1, 8, 17])
    with pytest.raises(So3kError, match=r"frame 1: element Cl .* knows H, O"):
        require_elements(frames, [8, 1])


NAN = WATER.copy()
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"R": np.stack([WATER, NAN, WATER])}, {}, "frame 1: positions of atom 2 is nan"),
        ({"E": np.array([1, np.inf, 2])}, {}, "frame 1: energy is inf"),
        ({"F": np.full((3, 3, 3), np.nan)}, {}, "frame 0: forces of atom 0 is nan"),
        ({"E": np.array([1, 1e30, 2])}, {}, "frame 1: energy is 1e\\+30"),
        ({"z": None}, {}, "no atomic numbers; expected one of z, .* keys present: E, F, R"),
        ({"R": None}, {}, "no positions; expected one of R"),
        ({"z": np.array([8, 1])}, {}, r"3 positions per frame, but atomic numbers of shape \(2,\)"),
        ({"z": np.array([8, 1, 200])}, {}, "atom 2 has atomic number 200"),
        ({"z": np.array([8.5, 1, 1])}, {}, "list of integers"),
        ({"z": np.zeros((3, 3), int)}, {}, "frame 0: holds no atoms"),
        ({"R": WATER.reshape(-1)}, {}, "positions have shape"),
        ({"R": np.zeros((0, 3, 3)), "E": np.zeros(0), "F": np.zeros((0, 3, 3))}, {}, "holds no frames"),
        ({"E": np.zeros(2)}, {}, "3 frames, but 2 entries of energy"),
        ({"E": np.zeros((3, 2))}, {}, r"energy has shape \(2,\)"),
        ({"F": np.zeros((3, 2, 3))}, {}, r"forces has shape \(2, 3\), expected \(3, 3\)"),
        ({"E": np.array(["a", "b", "c"])}, {}, "energy holds 'a', not numbers"),
        ({"E": np.array([{}, {}, {}], dtype=object)}, {}, "cannot be read as npz"),
        ({"cell": np.zeros((2, 2))}, {}, "cell has shape"),
        ({"cell": np.ones((3, 3))}, {}, "periodic vectors of the cell .* are linearly dependent"),
        ({"pbc": np.array([True] * 3)}, {}, "without a cell"),
        ({"pbc": np.array([True] * 2)}, {}, r"pbc has shape \(2,\), expected \(3,\) or \(3, 3\)"),
        ({"e_unit": "kcal/mol"}, {}, "array e_unit states energy in kcal/mol, but energy_unit is eV"),
        ({"r_unit": "Ang", "e_unit": "eV"}, {"length_unit": "Bohr"}, "states length in ang"),
        ({}, {"energy_key": "E_pbe"}, "no frame has the energy key 'E_pbe'; keys present: E, F, R, z"),
        ({}, {"energy_unit": "erg"}, "unknown unit 'erg': choose from eV"),
        ({"F": None}, {"required": ["energy", "forces"]}, "no frame has a label for forces; set forces_key"),
    ],
)
def test_refuses_npz(tmp_path, changes, options, says):
    with pytest.raises(So3kError, match=says) as refusal:
        read_frames(write_npz(tmp_path, **changes), **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("spoil", ["truncated", "foreign", "one array"])
def test_refuses_files_that_are_not_npz(tmp_path, spoil):
    path = write_npz(tmp_path)
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif spoil == "foreign":
        path.write_bytes(b"not an archive")
    else:
        with path.open("wb") as file:
            np.save(file, WATER)
    with pytest.raises(So3kError, match="npz"):
        read_frames(path)


GOOD = block()


@pytest.mark.parametrize(
    ("blocks", "options", "says"),
    [
        ([""], {}, "is empty"),
        (["\n \n"], {}, "holds no frames"),
        ([GOOD, block(count=4)], {}, "frame 1: the file states 4 atoms but ends after 3"),
        ([GOOD, block(count=2), GOOD], {}, "frame 2: line 10 must be the number of atoms"),
        ([GOOD, "\n", GOOD], {}, "frame 1: line 6 must be the number of atoms"),
        ([GOOD, block(rows=["O 0 0 0 1 2"])], {}, "frame 1: cannot be read"),
        ([GOOD, block(rows=["O 0 0 x 1 2 3"])], {}, "frame 1: cannot be read"),
        ([GOOD, block(rows=["Qq 0 0 0 1 2 3"])], {}, "frame 1: cannot be read .*Qq"),
        ([GOOD, block(rows=["X 0 0 0 1 2 3"])], {}, "atomic number 0"),
        ([GOOD, block(rows=["O 0 nan 0 1 2 3"])], {}, "frame 1: positions of atom 0 is nan"),
        ([GOOD, block(rows=["O 0 0 0 1 2 inf"])], {}, "frame 1: forces of atom 0 is inf"),
        (
            [block("Properties=species:S:1:pos:R:3:forces:R:3 energy=none")],
            {},
            "frame 0: energy holds 'none'",
        ),
        ([block("Properties=species:S:1:pos:R:3:forces:R:3 energy=nan")], {}, "frame 0: energy is nan"),
        (
            [block("Properties=species:S:1:pos:R:3:forces:R:2:q:R:1 energy=1")],
            {},
            r"forces has shape \(3, 2\)",
        ),
        (
            [block('pbc="T T T" Properties=species:S:1:pos:R:3:forces:R:3')],
            {},
            "periodic, but without a cell",
        ),
        ([block(f'Lattice="4 0 0 0 4 0 0 0 4" {COLUMNS} stress="1 2"')], {}, "frame 0: .*stress"),
        (
            [block(f'Lattice="4 0 0 0 4 0 0 0 4" {COLUMNS} my_stress="1 2"')],
            {"stress_key": "my_stress"},
            "stress has shape",
        ),
        ([block(f'Lattice="4 0 0 0 4 0 4 4 0" {COLUMNS}')], {}, "linearly dependent"),
        ([block(f'Lattice="4 0 0 0 4 0 0 0 nan" {COLUMNS}')], {}, "cell is nan"),
        (
            [GOOD],
            {"energy_key": "REF_energy"},
            "no frame has the energy key 'REF_energy'; keys present: energy, forces",
        ),
        ([GOOD], {"required": ["stress"]}, "no frame has a label for stress"),
        (
            [GOOD, block(rows=["O 0 0 0", "H 1 0 0"], comment="energy=1")],
            {"required": ["forces"]},
            "frame 1: has no forces",
        ),
    ],
)
def test_refuses_xyz(tmp_path, blocks, options, says):
    with pytest.raises(So3kError, match=says) as refusal:
        read_frames(write_xyz(tmp_path, *blocks), **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "says"), [("none.xyz", "no such data file"), ("", "is a folder")])
def test_refuses_paths(tmp_path, name, says):
    with pytest.raises(So3kError, match=says):
        read_frames(tmp_path / name)


@pytest.mark.parametrize("name", ["a.xyz", "a.weights", "a.traj"])
def test_refuses_foreign_bytes(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(itertools.islice(itertools.cycle(range(256)), 5000)))
    with pytest.raises(So3kError, match=name):
        read_frames(tmp_path / name)
