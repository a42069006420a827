"""Finds torsions and sorts them: φ, ψ, ω and χ1 of proteins by atom names, others by elements and bonds."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from so3k_md.analysis.bonds import chain_name, formula, ordered
from so3k_md.analysis.geometry import Integers
from so3k_md.structure.bonds import adjacency

ALPHA = {"CA", "CH3"}  # carbon next to a peptide bond, in residues and in the caps ACE and NME
GAMMA = {"CG", "CG1", "OG", "OG1", "SG"}
PROTEIN = ("φ", "ψ", "ω", "χ1")


def torsions(bonds: Integers) -> Integers:
    """Every chain i-j-k-l of three bonds, in one of its two directions, (torsions, 4)."""
    neighbors = adjacency(bonds)
    quads = [
        (i, j, k, end)
        for j, k in bonds.tolist()
        for i in neighbors[j]
        for end in neighbors[k]
        if i != k and end != j and i != end
    ]
    return np.array(quads, dtype=np.int64).reshape(-1, 4)


def torsion_kinds(
    quads: Integers, bonds: Integers, symbols: Sequence[str], names: Sequence[str], residues: Integers
) -> dict[str, Integers]:
    """The torsions of each kind: first those of proteins, then the others, the largest kind first.

    If atoms of the same elements are bonded differently, the name of the kind lists the bonded atoms of each
    atom: C(HNO) is a carbon bonded to hydrogen, nitrogen and oxygen.

    Args:
        quads: atoms (i, j, k, l), (torsions, 4).
        bonds: (bonds, 2).
        symbols: element of each atom.
        names: name of each atom in its residue, as in the PDB.
        residues: residue of each atom (atoms,).
    """
    neighbors = adjacency(bonds)
    around = {
        atom: f"{symbols[atom]}({formula([symbols[k] for k in found])})" for atom, found in neighbors.items()
    }
    protein: dict[str, list[list[int]]] = defaultdict(list)
    others: dict[str, dict[str, list[list[int]]]] = defaultdict(lambda: defaultdict(list))
    for quad in quads.tolist():
        if kind := protein_torsion(quad, names, residues):
            protein[kind].append(quad)
        else:
            elements = chain_name([symbols[atom] for atom in quad])
            surroundings = [around[atom] for atom in quad]
            others[elements]["–".join(min(surroundings, surroundings[::-1]))].append(quad)
    found: dict[str, list[list[int]]] = {}
    for elements, kinds in others.items():
        for detailed, group in kinds.items():
            found[elements if len(kinds) == 1 else detailed] = group
    first = {kind: np.array(protein[kind], dtype=np.int64) for kind in PROTEIN if kind in protein}
    return first | ordered(found)


def protein_torsion(quad: Sequence[int], names: Sequence[str], residues: Integers) -> str | None:
    """φ, ψ, ω or χ1, whichever direction the torsion has; None for other torsions."""
    for atoms in (quad, quad[::-1]):
        a, b, c, d = (names[atom] for atom in atoms)
        i, j, k, end = (int(residues[atom]) for atom in atoms)
        if (a, b, c, d) == ("C", "N", "CA", "C") and i != j == k == end:
            return "φ"
        if (a, b, c, d) == ("N", "CA", "C", "N") and i == j == k != end:
            return "ψ"
        if a in ALPHA and (b, c) == ("C", "N") and d in ALPHA | {"C"} and i == j != k == end:
            return "ω"
        if (a, b, c) == ("N", "CA", "CB") and d in GAMMA and i == j == k == end:
            return "χ1"
    return None
