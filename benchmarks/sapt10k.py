"""Interaction energies of the SAPT10k dimers by a model with charges, three ways of saying what is charged.

    so3k-md import so3lr -o so3lr.pt --dtype float64
    python benchmarks/sapt10k.py so3lr.pt

one charge: the dimer and the dimer pulled 10,000 Å apart, charge flowing freely between the two fragments.
monomers: the dimer as before, and each fragment by itself.
per fragment: as the first, each fragment keeping its charge. This is what is right where ions are.
Coulomb energies are those of all pairs, dispersion that of all pairs within a dimer. In brackets are numbers
of so3krates-torch, whose Coulomb sum was cut off and shifted at 1000 Å; the last column says how far ours are
from them at most, once that is allowed for.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from tqdm import tqdm

from so3k_md.checkpoint import load
from so3k_md.cli import guarded
from so3k_md.data.frames import Frame
from so3k_md.data.structures import given_charge_state
from so3k_md.data.units import ENERGY_UNITS
from so3k_md.errors import So3kError
from so3k_md.evaluate import predict
from so3k_md.files import atomic, check_output
from so3k_md.needs import needs_of
from so3k_md.physics.coulomb import KE

Floats = NDArray[np.float64]

DATA = Path(__file__).parent / "data" / "sapt10k"
APART = 10_000.0  # Å, as in the protocol of the set
PEER_CUTOFF = 1000.0  # Å, of the Coulomb sum of the other program
MARGIN = 3.0  # Å by which pairs of dispersion reach beyond the largest dimer: more than it is tapered over
PROTOCOLS = {
    "one charge": "peer_dimer_minus_translated_kcal",
    "monomers": "peer_dimer_minus_monomers_kcal",
    "per fragment": "per_fragment_charge_dimer_minus_translated_kcal",
}  # and the column of the other program
GROUPS: dict[str, Callable[[Floats], Any]] = {
    "all": lambda ions: ions >= 0,
    "neutral": lambda ions: ions == 0,
    "one ion": lambda ions: ions == 1,
    "two ions": lambda ions: ions == 2,
}


class Dimer(NamedTuple):
    """Two fragments, what they bind with, and what the other program finds."""

    atoms: Atoms  # with the array `fragment`, 0 and 1
    charges: tuple[int, int]  # e
    reference: float  # kcal/mol
    peer: dict[str, float]  # kcal/mol, by protocol

    @property
    def ions(self) -> int:
        """How many of the fragments are charged."""
        return sum(charge != 0 for charge in self.charges)


def read(folder: Path) -> list[Dimer]:
    """The dimers of `dimers.xyz`, with the rows of `reference_and_port.csv`.

    Raises:
        So3kError: a file is missing, or the two do not belong together.
    """
    xyz, csv = folder / "dimers.xyz", folder / "reference_and_port.csv"
    for path in (xyz, csv):
        if not path.is_file():
            raise So3kError(f"{path} is missing: give --data the folder that holds it")
    rows = np.atleast_1d(np.genfromtxt(csv, delimiter=",", names=True, encoding="utf-8"))
    structures = ase.io.read(xyz, index=":", format="extxyz")
    reference = np.array([atoms.info["benchmark_Eint"] for atoms in structures])
    if len(rows) != len(structures) or np.abs(rows["ref_kcal"] - reference).max() > 1e-4:
        raise So3kError(f"{csv} is not the table of {xyz}: give --data a folder where they belong together")
    dimers = []
    for atoms, row in zip(structures, rows, strict=True):
        info = atoms.info
        first, last = (int(word) for word in info["selection_b"].split("-"))
        fragment = np.zeros(len(atoms), dtype=np.int64)
        fragment[first - 1 : last] = 1
        bare = Atoms(atoms.numbers, atoms.positions)
        bare.arrays["fragment"] = fragment
        charges = int(info["charge_a"]), int(info["charge_b"])
        peer = {name: float(row[column]) for name, column in PROTOCOLS.items()}
        dimers.append(Dimer(bare, charges, float(info["benchmark_Eint"]), peer))
    return dimers


def pieces(dimer: Dimer) -> dict[str, Atoms]:
    """Every structure that a protocol asks for; `fragments` lets no charge flow between the two."""
    whole, second = dimer.atoms.copy(), dimer.atoms.arrays["fragment"] == 1
    whole.info["fragment_charges"] = list(dimer.charges)
    apart = whole.copy()
    middle = [whole.positions[part].mean(axis=0) for part in (~second, second)]
    line = middle[1] - middle[0]
    apart.positions[second] += APART * line / np.linalg.norm(line)
    found = {"dimer, fragments": whole, "apart, fragments": apart}
    one = {"a": whole[~second], "b": whole[second], "dimer": whole.copy(), "apart": apart.copy()}
    for name, atoms in one.items():
        del atoms.arrays["fragment"]
        charge = {"a": dimer.charges[0], "b": dimer.charges[1]}.get(name, sum(dimer.charges))
        atoms.info = {"charge": charge}
    return found | one


def evaluate(model: Any, structures: list[Atoms], batch_size: int, cutoff_lr: float) -> tuple[Floats, Floats]:
    """Energies, and how those of the other program differ by its cutoff, (structures,), kcal/mol."""
    frames = [
        Frame(
            atoms.numbers, atoms.positions, None, atoms.pbc, None, None, None, place, "SAPT10k",
            charge_state=given_charge_state(atoms),
        )
        for place, atoms in enumerate(structures)
    ]  # fmt: skip

    def shown(items: Iterable[Frame]) -> Iterable[Frame]:
        return tqdm(items, desc="evaluating", unit="structure", disable=not sys.stderr.isatty())

    found = predict(model, frames, batch_size, shown, cutoff_lr=cutoff_lr)
    energies = [one.energy for one in found]
    cuts = [
        cut(one.physics.charges, a.positions) for one, a in zip(found, structures, strict=True) if one.physics
    ]
    return np.array(energies) / ENERGY_UNITS["kcal/mol"], np.array(cuts) / ENERGY_UNITS["kcal/mol"]


def cut(q: Floats, positions: Floats) -> float:
    """What a Coulomb sum shifted at c = 1000 Å adds: −k_e V(c) q_i q_j for each pair, all of it beyond c.

    Args:
        q: charges, (n,), e.
        positions: (n, 3), Å; pairs are closer than 0.45 c, or farther than c and much farther than q is wide.

    Returns:
        eV.
    """
    distance = squareform(pdist(positions))
    near = distance < PEER_CUTOFF
    value = KE * np.where(near, 1.0 / PEER_CUTOFF, 1.0 / np.where(near, 1.0, distance))
    np.fill_diagonal(value, 0.0)
    return float(-0.5 * q @ value @ q)


def interactions(
    model: Any, dimers: list[Dimer], batch_size: int, cutoff_lr: float
) -> tuple[dict[str, Floats], ...]:
    """Interaction energies of each protocol and what the other program's cutoff adds, (dimers,), kcal/mol."""
    parts = [pieces(dimer) for dimer in dimers]
    names = list(parts[0])
    flat = evaluate(model, [of_one[name] for of_one in parts for name in names], batch_size, cutoff_lr)
    both = []
    for values in flat:
        e = dict(zip(names, values.reshape(len(dimers), len(names)).T, strict=True))
        both.append(
            {
                "one charge": e["dimer"] - e["apart"],
                "monomers": e["dimer"] - e["a"] - e["b"],
                "per fragment": e["dimer, fragments"] - e["apart, fragments"],
            }
        )
    return tuple(both)


def table(found: Mapping[str, Floats], cuts: Mapping[str, Floats], dimers: list[Dimer]) -> str:
    """Mean absolute errors in kcal/mol by the number of ions, those of the other program in brackets."""
    reference = np.array([dimer.reference for dimer in dimers])
    ions = np.array([dimer.ions for dimer in dimers])
    masks = {name: choose(ions) for name, choose in GROUPS.items() if choose(ions).any()}
    head = " | ".join(f"{name} ({mask.sum()})" for name, mask in masks.items())
    lines = [f"| protocol | {head} | largest difference |", "|---" * (len(masks) + 2) + "|"]
    for name, ours in found.items():
        peer = np.array([dimer.peer[name] for dimer in dimers])
        errors = [np.abs(values - reference) for values in (ours, peer)]
        cells = " | ".join(
            f"{errors[0][mask].mean():.3f} ({errors[1][mask].mean():.3f})" for mask in masks.values()
        )
        lines.append(f"| {name} | {cells} | {np.abs(ours + cuts[name] - peer).max():.5f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="exported file of a model with charges, such as so3lr.pt")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of dimers.xyz and its table")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="precision")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N dimers only")
    parser.add_argument("--batch-size", type=int, default=32, help="structures at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the energies of each dimer")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier FILE")
    args = parser.parse_args()
    if args.json:
        check_output(args.json, args.overwrite)
    model: Any = load(args.model, "cpu", args.dtype)
    if not needs_of(model).has_long_range:
        raise So3kError(f"{args.model} has no electrostatics: give one that so3k-md import so3lr made")
    dimers = read(args.data)[: args.limit]
    cutoff_lr = max(pdist(dimer.atoms.positions).max() for dimer in dimers) + MARGIN
    print(f"{len(dimers)} dimers, {args.dtype}, coulomb kspace (all pairs), cutoff_lr {cutoff_lr:.2f} Å")
    found, cuts = interactions(model, dimers, args.batch_size, float(cutoff_lr))
    print(table(found, cuts, dimers))
    if args.json:
        rows = {"reference_kcal_mol": [dimer.reference for dimer in dimers]}
        rows |= {f"{name.replace(' ', '_')}_kcal_mol": values.tolist() for name, values in found.items()}
        with atomic(args.json) as temporary:
            temporary.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
