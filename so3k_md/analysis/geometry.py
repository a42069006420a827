"""Distances, dihedrals and superposition: pure functions of positions, in Å."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from so3k_md.structure.pairs import FARTHEST

Array = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

NOT_PERIODIC = (False, False, False)


def sound_frames(positions: Array) -> Flags:
    """Whether all positions of a frame are usable numbers, (frames,).

    Args:
        positions: (frames, atoms, 3), Å.
    """
    return np.asarray((np.abs(positions) < FARTHEST).all(axis=(1, 2)))


def widths(cells: Array) -> Array:
    """The distances between opposite faces of each cell, h_k = V / |a_i x a_j|.

    Args:
        cells: rows are the cell vectors (frames, 3, 3), Å.

    Returns:
        widths (frames, 3), Å.
    """
    faces = np.cross(cells[:, [1, 2, 0]], cells[:, [2, 0, 1]])
    return np.abs(np.linalg.det(cells))[:, None] / np.linalg.norm(faces, axis=-1)


def minimum_image(vectors: Array, cells: Array | None, pbc: tuple[bool, bool, bool]) -> Array:
    """The periodic image of each vector with fractional components in [-1/2, 1/2].

    It is the shortest image whenever that is shorter than half the smallest width of the cell: fractional
    components are |f_k| = |v . n_k| / h_k <= |v| / h_k, so rounding cannot miss it.

    Args:
        vectors: (frames, n, 3), Å.
        cells: rows are the cell vectors (frames, 3, 3), Å; None without a cell.
        pbc: which of the three cell vectors are periodic.
    """
    if cells is None or not any(pbc):
        return vectors
    shifts = np.round(vectors @ np.linalg.inv(cells)) * np.asarray(pbc)
    return vectors - shifts @ cells


def pair_distances(
    positions: Array, pairs: Integers, cells: Array | None = None, pbc: tuple[bool, bool, bool] = NOT_PERIODIC
) -> Array:
    """Distances |r_j - r_i| of given pairs in each frame, (frames, pairs), Å.

    Args:
        positions: (frames, atoms, 3), Å.
        pairs: atoms (i, j), (pairs, 2).
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
    """
    vectors = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
    return np.linalg.norm(minimum_image(vectors, cells, pbc), axis=-1)


def dihedral_angles(
    positions: Array, quads: Integers, cells: Array | None = None, pbc: tuple[bool, bool, bool] = NOT_PERIODIC
) -> Array:
    """Torsions about j-k in [-180, 180], IUPAC sign: 0 is cis, 180 trans, (frames, quads), degrees.

    tan(phi) = |b2| b1 . (b2 x b3) / ((b1 x b2) . (b2 x b3)) with b1 = r_ij, b2 = r_jk, b3 = r_kl.

    Args:
        positions: (frames, atoms, 3), Å.
        quads: atoms (i, j, k, l), (quads, 4).
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
    """
    b1, b2, b3 = (
        minimum_image(positions[:, quads[:, k + 1]] - positions[:, quads[:, k]], cells, pbc) for k in range(3)
    )
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    sine = np.linalg.norm(b2, axis=-1) * (b1 * n2).sum(-1)
    return np.degrees(np.arctan2(sine, (n1 * n2).sum(-1)))


def superpose(mobile: Array, reference: Array) -> Array:
    """Each frame moved and rotated (never reflected) onto the reference by Kabsch's rotation.

    R = U diag(1, 1, det(U V)) V with the singular value decomposition mobile^T reference = U S V, both
    centred: doi:10.1107/S0567739476001873.

    Args:
        mobile: (frames, atoms, 3), Å.
        reference: (atoms, 3), Å.
    """
    centred = mobile - mobile.mean(axis=1, keepdims=True)
    target = reference - reference.mean(axis=0)
    u, _, vt = np.linalg.svd(centred.transpose(0, 2, 1) @ target)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return centred @ (u @ vt) + reference.mean(axis=0)


def rmsd(mobile: Array, reference: Array) -> Array:
    """Root-mean-square deviation from the reference after superposition, (frames,), Å.

    Args:
        mobile: (frames, atoms, 3), Å.
        reference: (atoms, 3), Å.
    """
    return np.sqrt(np.mean(np.sum((superpose(mobile, reference) - reference) ** 2, axis=-1), axis=-1))


def rmsf(mobile: Array) -> Array:
    """Root-mean-square fluctuation of each atom about its mean position after superposition, (atoms,), Å.

    Args:
        mobile: (frames, atoms, 3), Å.
    """
    mean = superpose(mobile, mobile[0]).mean(axis=0)
    aligned = superpose(mobile, mean)
    return np.sqrt(np.mean(np.sum((aligned - aligned.mean(axis=0)) ** 2, axis=-1), axis=0))
