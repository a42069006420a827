"""Computes distributions over a trajectory: bond lengths, dihedrals and g(r)."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.contacts import frame_chunks
from so3k_md.analysis.geometry import Array, Integers, dihedral_angles, minimum_image, widths

BOND_BIN = 0.01  # Å
LONGEST_BOND = 10.0  # Å; longer ones are counted but not drawn
DIHEDRAL_BIN = 5.0  # degrees
RDF_BIN = 0.05  # Å
PAIR_BUDGET = 50_000_000  # most distances for each g(r), a few seconds; more frames hardly change it
PAIR_BLOCK = 100_000


class Distribution(NamedTuple):
    """A normalised histogram of one kind of bond or dihedral."""

    kind: str  # elements, as C–H
    number: int  # how many such bonds or dihedrals there are
    mean: float | None  # None for angles, which have no mean on a circle
    std: float | None
    minimum: float | None
    maximum: float | None
    centres: Array  # (bins,)
    density: Array  # (bins,), integrates to 1


class Rdf(NamedTuple):
    """Radial distribution function of one pair of elements."""

    kind: str  # elements, as O–H
    pairs: int  # pairs of atoms that it counts
    frames: int  # frames that it averages
    r: Array  # (bins,), Å
    g: Array  # (bins,)
    peak_r: float  # Å
    peak_g: float


def histogram_density(values: Array, width: float, low: float, high: float) -> tuple[Array, Array]:
    """Centres and density on the fixed grid low + k width, so that different runs share their bins."""
    n_bins = round((high - low) / width)
    index = np.floor((values.ravel() - low) / width)
    inside = index[(index >= 0) & (index < n_bins)].astype(np.int64)
    counts = np.bincount(inside, minlength=n_bins)
    return low + width * (np.arange(n_bins) + 0.5), counts / (values.size * width)


def bond_length_distribution(kind: str, lengths: Array) -> Distribution:
    """The distribution of the lengths of one bond type.

    Args:
        kind: its name.
        lengths: (frames, bonds), Å.
    """
    centres, density = histogram_density(lengths, BOND_BIN, 0.0, LONGEST_BOND)
    filled = np.flatnonzero(density)
    shown = slice(max(filled[0] - 1, 0), filled[-1] + 2) if len(filled) else slice(0, 0)
    return Distribution(
        kind, lengths.shape[1], float(lengths.mean()), float(lengths.std()), float(lengths.min()),
        float(lengths.max()), centres[shown], density[shown],
    )  # fmt: skip


def dihedral_distribution(
    kind: str, positions: Array, quads: Integers, cells: Array | None, pbc: tuple[bool, bool, bool]
) -> Distribution:
    """The distribution of one type of dihedral over -180…180 degrees.

    Args:
        kind: its name.
        positions: (frames, atoms, 3), Å.
        quads: atoms (i, j, k, l), (quads, 4).
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
    """
    centres: Array = np.zeros(0)
    density: Array = np.zeros(round(360 / DIHEDRAL_BIN))
    for part in frame_chunks(len(positions), len(quads)):
        angles = dihedral_angles(positions[part], quads, None if cells is None else cells[part], pbc)
        angles = np.where(angles >= 180, -180.0, angles)
        centres, found = histogram_density(angles, DIHEDRAL_BIN, -180.0, 180.0)
        density = density + found * len(angles) / len(positions)
    return Distribution(kind, len(quads), None, None, None, None, centres, density)


def radial_distribution(
    positions: Array, cells: Array, first: Integers, second: Integers, molecules: Integers | None, kind: str
) -> Rdf | None:
    """g(r) between two sets of atoms up to half the smallest width of the box.

    g(r) = counts in a shell / sum over frames of (pairs / V) 4 pi (r_out^3 - r_in^3) / 3, with `pairs` those
    that are counted: an ideal gas has g = 1 whatever is left out.

    Args:
        positions: (frames, atoms, 3), Å.
        cells: rows are the cell vectors (frames, 3, 3), Å; periodic in all three directions.
        first: atoms of one element (n,).
        second: atoms of the other element (m,); the same array for one element with itself.
        molecules: molecule of each atom; pairs inside one are left out. None counts every pair.
        kind: its name.

    Returns:
        None if no pair is left.
    """
    edges = np.arange(0.0, float(widths(cells).min()) / 2 + 1e-9, RDF_BIN)
    same = np.array_equal(first, second)
    total = sum(len(i) for i, _ in pair_blocks(first, second, same, molecules))
    if total == 0 or len(edges) < 2:
        return None
    n_frames = int(np.clip(PAIR_BUDGET // total, 1, len(positions)))
    frames = np.unique(np.linspace(0, len(positions) - 1, n_frames).astype(np.int64))
    counts = np.zeros(len(edges) - 1)
    for i, j in pair_blocks(first, second, same, molecules):
        for part in frame_chunks(len(frames), len(i)):
            chosen = frames[part]
            places = positions[chosen]
            vectors = minimum_image(places[:, j] - places[:, i], cells[chosen], (True, True, True))
            index = (np.linalg.norm(vectors, axis=-1) / RDF_BIN).astype(np.int64).ravel()
            counts += np.bincount(index[index < len(counts)], minlength=len(counts))
    volumes = np.abs(np.linalg.det(cells[frames]))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    g = counts / (total * np.sum(1 / volumes) * shells)
    r = (edges[:-1] + edges[1:]) / 2
    top = int(g.argmax())
    return Rdf(kind, total, len(frames), r, g, float(r[top]), float(g[top]))


def pair_blocks(
    first: Integers, second: Integers, same: bool, molecules: Integers | None
) -> Iterator[tuple[Integers, Integers]]:
    """The pairs of two sets in blocks: each unordered pair once, none within a molecule."""
    rows = max(1, PAIR_BLOCK // max(len(second), 1))
    for start in range(0, len(first), rows):
        i, j = (grid.ravel() for grid in np.meshgrid(first[start : start + rows], second, indexing="ij"))
        keep = i < j if same else np.ones(len(i), dtype=bool)
        if molecules is not None:
            keep &= molecules[i] != molecules[j]
        if keep.any():
            yield i[keep], j[keep]


def element_pairs(symbols: Sequence[str]) -> list[tuple[str, Integers, Integers]]:
    """Every pair of elements with the atoms of each, heavy elements before hydrogen."""
    elements = sorted(set(symbols), key=lambda symbol: (symbol == "H", symbol))
    atoms = {element: np.flatnonzero(np.array(symbols) == element) for element in elements}
    return [(f"{a}–{b}", atoms[a], atoms[b]) for a, b in itertools.combinations_with_replacement(elements, 2)]
