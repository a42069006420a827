"""Labels mean what their units and keys say, charge and spin under every common name."""

import bz2
import gzip
import io
import lzma
import warnings
import zipfile

import ase.units as u
import numpy as np
import pytest
from test_frames import LATTICE, block, write_npz, write_xyz

from so3k_md.data import read_frames
from so3k_md.data.keys import charge_state_from
from so3k_md.data.write import write_extxyz
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.charges import Spin, resolve_charge_state, unpaired_electrons

PERIODIC = f"{LATTICE} Properties=species:S:1:pos:R:3:forces:R:3 energy=2"
SIX = np.arange(1.0, 7.0)
MATRIX = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        (None, u.Hartree / u.Angstrom),
        ("Hartree/Bohr", u.Hartree / u.Bohr),
        ("Ha/a0", u.Hartree / u.Bohr),
        ("eV/Å", 1.0),
        ("kcal/mol/Angstrom", u.kcal / u.mol),
        ("kJ/mol/nm", u.kJ / u.mol / u.nm),
        ("Ry/Bohr", u.Rydberg / u.Bohr),
        ("meV/Angstrom", 1e-3),
    ],
)
def test_forces_have_a_unit_of_their_own(tmp_path, unit, factor):
    frame = read_frames(write_xyz(tmp_path, block()), energy_unit="Hartree", forces_unit=unit)[0]
    assert frame.energy == pytest.approx(-1.5 * u.Hartree, rel=1e-14)
    np.testing.assert_allclose(frame.forces[0], np.array([0.1, 0.2, 0.3]) * factor, rtol=1e-14)


@pytest.mark.parametrize(
    ("key", "options", "factor"),
    [
        ("REF_stress", {}, 1.0),
        ("REF_stress", {"stress_unit": "GPa"}, u.GPa),
        ("my_stress", {"stress_unit": "kbar", "stress_sign": "opposite"}, -0.1 * u.GPa),
        ("stress", {"stress_unit": "bar"}, u.bar),
        ("stress", {"stress_unit": "Hartree/Bohr^3"}, u.Hartree / u.Bohr**3),
        ("virial_stress", {"stress_unit": "eV/Å³"}, 1.0),
        ("REF_vir", {}, -1 / 120.0),
        ("virials", {"energy_unit": "Hartree"}, -u.Hartree / 120.0),
        ("W_total", {"stress_unit": "kcal/mol"}, -u.kcal / u.mol / 120.0),
        ("REF_vir", {"stress_sign": "opposite"}, 1 / 120.0),
    ],
)
def test_stress_and_virial_by_unit_and_name(tmp_path, key, options, factor):
    path = write_xyz(tmp_path, block(f'{PERIODIC} {key}="{" ".join(map(str, MATRIX.ravel()))}"'))
    np.testing.assert_allclose(read_frames(path, stress_key=key, **options)[0].stress, MATRIX * factor)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stress_key": "W_total"}, "'W_total' does not say whether .*: set stress_unit"),
        ({"stress_key": "virial_stress"}, "'virial_stress' does not say whether"),
        ({"forces_unit": "Hartree"}, "unknown unit 'Hartree': write an energy over a length"),
        ({"stress_unit": "psi"}, "unknown unit 'psi': choose from GPa"),
        ({"stress_sign": "vasp"}, "stress_sign 'vasp': choose ase or opposite"),
        ({"spin_convention": "2S"}, "spin_convention '2S': choose auto, S, unpaired, multiplicity"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, options, says):
    with pytest.raises(So3kError, match=says):
        read_frames(write_xyz(tmp_path, block()), **options)


TWO = block() + "\n" + block() + block()


@pytest.mark.parametrize("name", ["a.xyz", "a.XYZ", "a.xyz.gz", "a.extxyz.xz", "a.xyz.bz2", "a"])
def test_no_frame_vanishes_after_a_blank_line(tmp_path, name):
    opener = {"gz": gzip.open, "xz": lzma.open, "z2": bz2.open}.get(name[-2:], open)
    for text, refused in ((TWO, "frame 1: line 6 must be"), (block() * 3 + "\n\n", None)):
        with opener(tmp_path / name, "wt") as file:
            file.write(text)
        if refused:
            with pytest.raises(So3kError, match=refused):
                read_frames(tmp_path / name)
        else:
            assert len(read_frames(tmp_path / name)) == 3


def test_a_compressed_file_that_was_cut_is_refused(tmp_path):
    path = tmp_path / "a.xyz.gz"
    path.write_bytes(gzip.compress((block() * 50).encode())[:-20])
    with pytest.raises(So3kError, match="fetch it again"):
        read_frames(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9" * 5000 + "\n", "states 9999.* atoms, more than"),
        ("99999999999\nenergy=1\nO 0 0 0\n", "states 99999999999 atoms"),
        ("9999999\nenergy=1\nO 0 0 0\n", "the file states 9999999 atoms but ends after 1"),
        (block("Properties=species:S:1:pos:R:3:forces:R:99999999"), "states 100000003 columns, .* has 7"),
        (block('Properties="species:S:1:pos:R:3:q:R:9999999999" energy=1'), "cannot be read"),
        ("1\n" + "x" * 10_000_001 + "\nO 0 0 0\n", "line 2 is longer than 10,000,000"),
    ],
)
def test_sizes_that_cannot_be_are_refused_at_once(tmp_path, text, says):
    with pytest.raises(So3kError, match=says) as refusal:
        read_frames(write_xyz(tmp_path, text))
    assert len(str(refusal.value)) < 500


def test_arrays_are_not_unpacked_before_their_shape_is_known(tmp_path):
    header = io.BytesIO()
    layout = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(header, layout)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("R.npy", header.getvalue())
        file.writestr("z.npy", header.getvalue())
    with pytest.raises(So3kError, match="positions have shape"):
        read_frames(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        layout["shape"] = (10**9, 3, 3)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, layout)
        file.writestr("R.npy", header.getvalue())
        layout["shape"] = (3,)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, layout)
        file.writestr("z.npy", header.getvalue() + np.ones(3).tobytes())
    with pytest.raises(So3kError, match="take 72.0 GB, more than half of the memory|cannot be read as npz"):
        read_frames(tmp_path / "b.npz")
    unused = write_npz(tmp_path, remarks=np.array([{}], dtype=object))
    assert len(read_frames(unused)) == 3, "an array that nobody needs is not read"


@pytest.mark.parametrize(
    ("comment", "row", "says"),
    [
        (f"{PERIODIC} energy=-2", "", "energy appears twice in the comment line"),
        (f"{PERIODIC} pbc=no", "", "pbc=no is not understood"),
        (f'{PERIODIC} pbc="N N N"', "", 'pbc="N N N" is not understood'),
        (PERIODIC.replace("Lattice", "lattice"), "", "the cell under 'lattice' is not read"),
        (PERIODIC.replace("Lattice", "Cell"), "", "the cell under 'Cell' is not read"),
        (PERIODIC, "H 0 0 2 0 0 0 9", "states 7 columns, but atom 3 has 8"),
        (PERIODIC, "H 0 0 2 0 0", "states 7 columns, but atom 3 has 6"),
        ("energy=-1", "", "without Properties there must be 4 columns, but atom 0 has 7"),
        (f'{PERIODIC} my_stress="1 2 3 4 5 6 7 8 9"', "", "stress is not symmetric"),
    ],
)
def test_what_a_parser_would_pass_over_is_refused(tmp_path, comment, row, says):
    rows = ["O 0 0 0 0.1 0.2 0.3", "H 0.96 0 0 0 0 0", "H -0.24 0.93 0 0 0 0", *([row] if row else [])]
    options = {"stress_key": "my_stress"} if "my_stress" in comment else {}
    with pytest.raises(So3kError, match=f"frame 0: .*{says}"):
        read_frames(write_xyz(tmp_path, block(comment, rows)), **options)


@pytest.mark.parametrize("pbc", ["T T T", "1 1 1", "True True True", "[true, true, true]"])
def test_periodic_axes_as_programs_write_them(tmp_path, pbc):
    path = write_xyz(tmp_path, "\ufeff" + block(f'{PERIODIC} note="a=b a=b" pbc="{pbc}"'))
    assert read_frames(path)[0].pbc.all()


@pytest.mark.parametrize("key", ["sigma", "pressure", "REF_vir", "stress_kbar", "free_energy", "stresses"])
def test_what_may_be_a_label_is_named(tmp_path, key):
    comment = f"{LATTICE} Properties=species:S:1:pos:R:3:forces:R:3 {key}=1"
    with pytest.warns(So3kWarning, match=f"{key} look like labels"):
        read_frames(write_xyz(tmp_path, block(comment)))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"box": np.eye(3)}, "the cell under 'box' is not read"),
        ({"Cell": np.eye(3)}, "the cell under 'Cell' is not read"),
        ({"cell": 9 * np.eye(3), "pbc": np.array(["F", "F", "F"])}, "values other than true and false"),
        ({"cell": 9 * np.eye(3), "pbc": np.full(3, np.nan)}, "values other than true and false"),
        ({"coords": np.ones((3, 3, 3))}, "R and coords contradict each other"),
    ],
)
def test_arrays_that_would_be_passed_over_are_refused(tmp_path, arrays, says):
    with pytest.raises(So3kError, match=says):
        read_frames(write_npz(tmp_path, **arrays))


def test_an_array_that_stands_twice_is_refused(tmp_path):
    path = write_npz(tmp_path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("E.npy", file.read("E.npy"))
    with pytest.raises(So3kError, match="two arrays have the same name"):
        read_frames(path)


def test_a_bomb_is_refused_without_being_unpacked(tmp_path, monkeypatch):
    header = io.BytesIO()
    layout = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 3, 3)}
    np.lib.format.write_array_header_1_0(header, layout)
    path = write_npz(tmp_path, R=None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("R.npy", header.getvalue() + bytes(72 * 10**6))
    assert path.stat().st_size < 10**6
    monkeypatch.setattr("so3k_md.data.arrays.available_memory", lambda: 1e8)
    with pytest.raises(So3kError, match="take 72 MB, more than half of the memory that is free"):
        read_frames(path)


def test_a_cell_that_is_none_is_refused_with_file_and_frame(tmp_path):
    comment = 'Lattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3:forces:R:3'
    with pytest.raises(So3kError, match=r"frames.xyz, frame 1 is the cube of 1 Å .* pbc to \"F F F\""):
        read_frames(write_xyz(tmp_path, block(), block(comment)))
    open_one = write_xyz(tmp_path, block(f'{comment} pbc="F F F"'))
    assert read_frames(open_one)[0].volume is None


def water(spin, **more):
    words = " ".join(f"{key}={value}" for key, value in {"spin": spin, **more}.items() if value is not None)
    return block(f"Properties=species:S:1:pos:R:3:forces:R:3 energy=1 {words}")


embedding = type("Model", (), {"has_charge_state": True, "singlets_only": False})


def resolved(frame):
    return resolve_charge_state(embedding, frame.numbers, frame.charge_state, frame.where)


@pytest.mark.parametrize(
    ("blocks", "options", "unpaired"),
    [
        ([water(1), water(2, charge=1)], {}, [0, 1]),  # OMol25: the cation tells 2S + 1
        ([water(0), water(1, charge=1)], {}, [0, 1]),  # unpaired electrons
        ([water(1), water(0.5, total_charge=1)], {}, [2, 1]),  # S
        ([water(3)], {"spin_convention": "multiplicity"}, [2]),
        ([water(2)], {"spin_convention": "unpaired"}, [2]),
        ([water(1)], {"spin_convention": "S"}, [2]),
        ([water(None, multiplicity=3)], {}, [2]),
        ([water(None, uhf=2)], {}, [2]),
        ([water(None, spin_quantum_number=1)], {}, [2]),
        ([water(None, total_spin=1)], {"spin_convention": "S"}, [2]),
        ([water(None, total_spin=1), water(None, total_spin=0.5, charge=1)], {}, [2, 1]),
        ([water(None, total_spin=2, net_charge=-1)], {}, [1]),
        ([water(0), water(None)], {}, [0, 0]),
    ],
)
def test_spin_is_what_the_electrons_allow(tmp_path, blocks, options, unpaired):
    frames = read_frames(write_xyz(tmp_path, *blocks), **options)
    assert [resolved(frame).unpaired for frame in frames] == unpaired
    write_extxyz(tmp_path / "again.xyz", [(frame, {}, {}) for frame in frames])
    assert [resolved(frame).unpaired for frame in read_frames(tmp_path / "again.xyz")] == unpaired


@pytest.mark.parametrize(("spin", "unpaired"), [(1, 0), (3, 2)])
def test_a_spin_of_even_electrons_is_the_multiplicity_with_a_warning(tmp_path, spin, unpaired):
    """As OMol25 and the calculators of ASE for its models mean it: water with spin = 1 is a singlet."""
    frames = read_frames(write_xyz(tmp_path, water(spin), water(3)))
    with pytest.warns(So3kWarning, match=f"spin = {spin} .* read as the multiplicity 2 S \\+ 1"):
        assert resolved(frames[0]).unpaired == unpaired
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("multiplicity", "spin_multiplicity"):
            frame = read_frames(write_xyz(tmp_path, water(None, **{name: spin})))[0]
            assert resolved(frame).unpaired == unpaired
    singlets = type("Model", (), {"has_charge_state": True, "singlets_only": True})
    given = charge_state_from({"spin": 1}, None)
    with pytest.warns(So3kWarning, match="read as the multiplicity"):
        assert resolve_charge_state(singlets, [8, 1, 1], given, "it").unpaired == 0


def test_a_spin_that_may_mean_two_things_is_refused_where_it_matters(tmp_path):
    frames = read_frames(write_xyz(tmp_path, water(None, total_spin=1), water(None, total_spin=3)))
    write_extxyz(tmp_path / "again.xyz", [(frame, {}, {}) for frame in frames])
    for frame in (frames[0], read_frames(tmp_path / "again.xyz")[0]):
        with pytest.raises(So3kError, match=r"spin = 1.* with 10 electrons may be S or 2 S \+ 1: "):
            resolved(frame)
    with pytest.raises(So3kError, match="may be S or the number of unpaired electrons"):
        resolved(read_frames(write_xyz(tmp_path, water(2)))[0])
    assert unpaired_electrons(Spin(1, "multiplicity"), 10, "") == 0
    assert unpaired_electrons(1, 10, "") == 2, "a number by itself is S"


@pytest.mark.parametrize("key", ["charge", "total_charge", "net_charge", "tot_charge", "molecular_charge"])
def test_the_total_charge_under_its_names(tmp_path, key):
    frame = read_frames(write_xyz(tmp_path, water(0.5, **{key: 1})))[0]
    assert resolved(frame).charge == 1
    arrays = {key: np.array([1, -1, 1]), "multiplicity": np.array([2, 2, 4])}
    assert [resolved(f).charge for f in read_frames(write_npz(tmp_path, **arrays))] == [1, -1, 1]
    with pytest.raises(So3kError, match="frame 0: .*contradict each other"):
        read_frames(write_xyz(tmp_path, water(None, charge=0, total_charge=1)))


def test_keys_that_look_like_labels_are_named_unless_the_user_has_chosen(tmp_path):
    comment = "Properties=species:S:1:pos:R:3:forces:R:3 energy=2 energy_dft=3 dipole=1 virial_x=2 note=5"
    path = write_xyz(tmp_path, block(comment))
    with pytest.warns(So3kWarning, match="dipole, energy_dft, virial_x look like .*energy, forces"):
        read_frames(path)
    with pytest.warns(So3kWarning, match="frames.xyz: dipole, virial_x look like"):
        read_frames(path, energy_key="energy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frames(write_xyz(tmp_path, water(0, charge=0)))
