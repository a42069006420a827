"""Inputs and outputs of LAMMPS for its tests."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from so3k_md.engines import lammps

SYMBOLS = ("H", "C", "O")
# LAMMPS' own nktv2p of `units metal`, to undo its pressure: bar in one eV/Å³
BAR = 1.6021765e6
SINGLE_POINT = """
compute pe all pe/atom
compute virial all stress/atom NULL
compute centroid all centroid/stress/atom NULL
compute pressure all pressure NULL virial
dump out all custom 1 {name}.dump id type x y z fx fy fz c_pe c_virial[*] c_centroid[*]
dump_modify out sort id format float %.17g
thermo_style custom step pe vol c_pressure[*]
run 0
print "{name} $(pe:%.17g) $(vol:%.17g) $(c_pressure[1]:%.17g) $(c_pressure[2]:%.17g) &
$(c_pressure[3]:%.17g) $(c_pressure[4]:%.17g) $(c_pressure[5]:%.17g) $(c_pressure[6]:%.17g)" append results
"""
# beside SINGLE_POINT, for models that predict charges
LONG_RANGE = """
fix predicted all pair 1 so3k charges 0 hirshfeld_ratios 0
dump predicted all custom 1 {name}.predicted id f_predicted[1] f_predicted[2]
dump_modify predicted sort id format float %.17g
compute parts all pair so3k
fix parts all ave/time 1 1 1 c_parts[*] file {name}.parts format " %.17g"
"""


def lammps_frame(atoms: Atoms) -> Atoms:
    """The same structure turned so that its cell is lower triangular, as LAMMPS wants it."""
    atoms = atoms.copy()
    if atoms.pbc.any():
        atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return atoms


def write_data(path: Path, atoms: Atoms, symbols=SYMBOLS, molecules=None, wrap=True) -> None:
    """A data file for a box around the atoms or their cell.

    Args:
        path: the file.
        atoms: in LAMMPS' frame.
        symbols: of the atom types.
        molecules: number of each atom's molecule, for atom_style molecular.
        wrap: with molecules, write wrapped positions and image flags, which together are those of `atoms`;
            otherwise positions stay where they are, in the cell or not.
    """
    low, cell = np.zeros(3), atoms.cell.array
    if not atoms.pbc.any():
        low = atoms.positions.min(0) - 1.0
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 2.0)
    lines = ["so3k-md test", "", f"{len(atoms)} atoms", f"{len(symbols)} atom types"]
    for k, axis in enumerate("xyz"):
        lines.append(f"{low[k]:.17g} {low[k] + cell[k, k]:.17g} {axis}lo {axis}hi")
    lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{k + 1} {atomic_masses[atomic_numbers[s]]:.6f}" for k, s in enumerate(symbols)]
    lines += ["", f"Atoms # {'atomic' if molecules is None else 'molecular'}", ""]
    wrap = wrap and molecules is not None
    images = np.floor((atoms.positions - low) @ np.linalg.inv(cell)).astype(int) * wrap
    for k, position in enumerate(atoms.positions - images @ cell):
        numbers = [k + 1, symbols.index(atoms.symbols[k]) + 1]
        if molecules is not None:
            numbers.insert(1, molecules[k])
        words = [*map(str, numbers), *(f"{x:.17g}" for x in position)]
        lines.append(" ".join([*words, *map(str, images[k])] if wrap else words))
    path.write_text("\n".join(lines) + "\n")


def bonded_data(text: str, bonds: Sequence[tuple[int, int]], angles=()) -> str:
    """A data file of `write_data` with molecules, to which bonds and angles are added.

    Args:
        text: of the file.
        bonds: atoms of each, from 0.
        angles: the same.
    """
    counts = [(bonds, "bond"), (angles, "angle")]
    header = "".join(f"{len(rows)} {name}s\n1 {name} types\n" for rows, name in counts if len(rows))
    text = text.replace("atom types\n", f"atom types\n{header}12 extra special per atom\n", 1)
    for rows, name in counts:
        lines = (" ".join(str(k + 1) for k in row) for row in rows)
        body = "\n".join(f"{n} 1 {line}" for n, line in enumerate(lines, 1))
        text += f"\n{name.title()}s\n\n{body}\n" if len(rows) else ""
    return text


def setup(
    atoms: Atoms,
    data: str,
    model: str,
    style="so3k precision float64 device cpu",
    units="metal",
    before="",
    symbols=SYMBOLS,
) -> str:
    """The commands up to the force field."""
    boundary = "p p p" if atoms.pbc.all() else "f f f"
    return f"""
units {units}
boundary {boundary}
{before}read_data {data}
pair_style {style}
pair_coeff * * {model} {" ".join(symbols)}
"""


def run(folder: Path, script: str, ranks: int = 1, name: str = "in.lammps") -> str:
    """Run a script that must succeed, and return what LAMMPS printed."""
    (folder / name).write_text(script)
    done = lammps.run(name, folder, ranks, timeout=300)
    assert done.returncode == 0, f"{(done.stdout + done.stderr)[-3000:]}\nexit status {done.returncode}"
    return done.stdout


def refused(folder: Path, script: str, ranks: int = 2) -> str:
    """Run a script that must fail without hanging, and return the line of the error.

    A rank that aborts ends the others, now and then before `mpirun` has passed on its line: then once more.
    """
    (folder / "in.bad").write_text(script)
    errors: list[str] = []
    for _ in range(3):
        done = lammps.run("in.bad", folder, ranks, timeout=300)
        assert done.returncode != 0, done.stdout[-3000:]
        errors = re.findall(
            r"^ERROR(?: on proc \d+)?: (.*?)(?: \(\S*\.cpp:\d+\))?$", done.stdout + done.stderr, re.M
        )
        if errors:
            break
    assert len(set(errors)) == 1, (done.stdout + done.stderr)[-3000:]
    return errors[0]


def read_dump(path: Path, frame: int = -1) -> np.ndarray:
    """One frame of a dump sorted by atom number, without that column."""
    lines = path.read_text().split("ITEM: ATOMS")[frame].split("ITEM:")[0].splitlines()[1:]
    return np.array([line.split() for line in lines], dtype=float)[:, 1:]


class SinglePoint(NamedTuple):
    """What LAMMPS says of one structure, eV and Å; virials as xx yy zz xy xz yz (yx zx zy)."""

    energy: float
    virial: np.ndarray  # (6,)
    forces: np.ndarray
    energies: np.ndarray
    virials: np.ndarray  # (atoms, 6)
    centroid_virials: np.ndarray  # (atoms, 9)


def read_single_point(folder: Path, name: str) -> SinglePoint:
    """The results of a script with SINGLE_POINT."""
    lines = map(str.split, (folder / "results").read_text().splitlines())
    energy, volume, *pressure = next(map(float, words[1:]) for words in lines if words[0] == name)
    atoms = read_dump(folder / f"{name}.dump")
    virials = -atoms[:, 8:] / BAR  # of each atom LAMMPS gives -virial, in bar Å³
    return SinglePoint(
        energy, np.array(pressure) * volume / BAR, atoms[:, 4:7], atoms[:, 7], virials[:, :6], virials[:, 6:]
    )


class LongRange(NamedTuple):
    """What LAMMPS says of charges, eV, e and Å."""

    charges: np.ndarray
    ratios: np.ndarray
    parts: np.ndarray  # (4,)
    charge: float
    dipole: np.ndarray  # (3,)


def read_long_range(folder: Path, name: str) -> LongRange:
    """The results of a script with LONG_RANGE at its first step."""
    charges, ratios = read_dump(folder / f"{name}.predicted", 1).T
    lines = (folder / f"{name}.parts").read_text().splitlines()
    sums = np.array(next(line for line in lines if not line.startswith("#")).split()[1:], dtype=float)
    return LongRange(charges, ratios, sums[:4], sums[4], sums[5:])


def words(output: str, name: str) -> list[float]:
    """The numbers that a script printed after `name`."""
    return [float(word) for word in re.search(rf"^{name} (.*)$", output, re.M)[1].split()]


def check_virial(place: Path, commands: str, cell: np.ndarray, tolerance: float) -> None:
    """The virial is what the energy changes by when the box does, atoms with it, along all six of its sides.

    Args:
        place: folder of the run.
        commands: up to the force field.
        cell: rows are the lattice vectors, in LAMMPS' frame.
        tolerance: eV/Å.
    """
    step = 1e-4  # Å
    pressure = " ".join(f"$(c_w[{k}]*vol)" for k in range(1, 7))
    script = commands + "compute w all pressure NULL virial\nthermo_style custom step pe c_w[*]\n"
    script += f"run 0\nprint 'virial {pressure}'\n"
    box = {"x final 0 {}": (0, 0), "y final 0 {}": (1, 1), "z final 0 {}": (2, 2)}
    box |= {"xy final {}": (0, 1), "xz final {}": (0, 2), "yz final {}": (1, 2)}
    h = cell.T  # columns are the lattice vectors
    for change, place_in_h in box.items():
        for length in h[place_in_h] + np.array([step, -step, 0]):
            script += f"change_box all {change.format(f'{length:.17g}')} remap units box\n"
            script += "run 0\nprint 'energy $(pe:%.17g)'\n"
    output = run(place, script, 2)
    energies = np.array([float(e) for e in re.findall(r"^energy (.*)$", output, re.M)]).reshape(6, 3)
    xx, yy, zz, xy, xz, yz = np.array(words(output, "virial")) / BAR
    virial = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    assert np.abs(virial).max() > 0.3
    for derivative, place_in_h in zip(
        (energies[:, 0] - energies[:, 1]) / (2 * step), box.values(), strict=True
    ):
        change = np.zeros((3, 3))
        change[place_in_h] = 1.0
        assert derivative == pytest.approx(-(virial * (change @ np.linalg.inv(h))).sum(), abs=tolerance)
