"""Splits frames into training and validation, as published or drawn with a seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from so3k_md.data.arrays import load_npz, npz_headers
from so3k_md.errors import So3kError

Ints = NDArray[np.int64]

TRAIN = ("train", "train_idx", "idx_train", "train_indices", "train_index", "index_train")
VALID = (
    "valid",
    "val",
    "validation",
    "valid_idx",
    "val_idx",
    "idx_valid",
    "idx_val",
    "validation_idx",
    "valid_indices",
)


class Split(NamedTuple):
    """Disjoint indices of training and validation frames."""

    train: Ints
    valid: Ints


def make_split(
    n_frames: int,
    n_train: int | None = None,
    n_valid: int | None = None,
    seed: int = 0,
    train_file: str | Path | None = None,
    valid_file: str | Path | None = None,
) -> Split:
    """Choose training and validation frames.

    Published indices (zero-based; npz, or text with one or more numbers per line) are used unchanged. Indices
    that are not published are drawn as in the authors' code: of
    `numpy.random.RandomState(seed).permutation` of the frames (or of the published training indices) the
    first n_train are for training, the next n_valid for validation.

    Args:
        n_frames: frames in the data file.
        n_train: number of training frames; None for all remaining frames.
        n_valid: number of validation frames; None for none, or for all in the file.
        seed: of the permutation.
        train_file: published indices; an npz may also contain the validation indices.
        valid_file: published validation indices.

    Raises:
        So3kError: indices that are out of range, repeated, in both parts, or fewer than asked for.
    """
    if valid_file is not None and train_file is None:
        raise So3kError(
            f"{valid_file}: validation indices are given without training indices; give both files"
        )
    if train_file is None:
        return _draw(np.arange(n_frames), n_train, n_valid, seed, "the data")
    train = read_indices(train_file, TRAIN, n_frames)
    valid: Ints | None = None
    if valid_file is not None:
        valid = read_indices(valid_file, VALID, n_frames)
    elif str(train_file).endswith(".npz") and not npz_headers(Path(train_file)).keys().isdisjoint(VALID):
        valid = read_indices(train_file, VALID, n_frames)
    if valid is None:
        return _draw(train, n_train, n_valid, seed, str(train_file))
    both = np.intersect1d(train, valid)
    if len(both):
        raise So3kError(f"{train_file}: frame {both[0]} is in training and validation; correct the split")
    for name, wanted, part in (("n_train", n_train, train), ("n_valid", n_valid, valid)):
        if wanted is not None and wanted != len(part):
            raise So3kError(
                f"{train_file}: the split has {len(part)} frames where {name} is {wanted}; leave {name} out"
            )
    return Split(train, valid)


def read_indices(path: str | Path, names: Sequence[str], n_frames: int) -> Ints:
    """Zero-based frame indices from an npz (under one of the names) or a text file.

    Raises:
        So3kError: indices that are unreadable, out of range or repeated.
    """
    path = Path(path)
    if not path.is_file():
        raise So3kError(f"{path}: there is no such split file; check the path")
    try:
        values = _from_npz(path, names) if path.suffix == ".npz" else _from_text(path)
    except (ValueError, OSError) as error:
        raise So3kError(
            f"{path}: cannot be read as frame indices ({error}); give integers in npz or text"
        ) from error
    indices = np.asarray(values).reshape(-1)
    if len(indices) == 0:
        raise So3kError(f"{path}: holds no indices; give at least one")
    if indices.dtype.kind not in "iu":
        raise So3kError(f"{path}: indices are {indices.dtype}, integers are needed")
    wrong = indices[(indices < 0) | (indices >= n_frames)]
    if len(wrong):
        raise So3kError(
            f"{path}: index {wrong[0]} is outside 0 … {n_frames - 1}; the split belongs to another file"
        )
    unique, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        raise So3kError(f"{path}: index {unique[counts > 1][0]} appears twice; correct the split")
    return indices.astype(np.int64)


def _draw(pool: Ints, n_train: int | None, n_valid: int | None, seed: int, where: str) -> Split:
    """The first n_train and the next n_valid of a seeded permutation of the pool."""
    n_valid = n_valid or 0
    n_train = len(pool) - n_valid if n_train is None else n_train
    if n_train < 1 or n_valid < 0 or n_train + n_valid > len(pool):
        raise So3kError(
            f"n_train = {n_train} and n_valid = {n_valid}, but {where} has {len(pool)} frames: choose "
            "n_train of at least 1, and a sum of at most this number"
        )
    order = pool[np.random.RandomState(seed).permutation(len(pool))]
    return Split(order[:n_train], order[n_train : n_train + n_valid])


def _from_npz(path: Path, names: Sequence[str]) -> NDArray[np.generic]:
    """The array under the first of the names."""
    headers = npz_headers(path)
    for name in names:
        if name in headers:
            return load_npz(path, [name])[name]
    raise So3kError(f"{path}: none of the keys {', '.join(names)}; keys present: {', '.join(headers)}")


def _from_text(path: Path) -> NDArray[np.int64]:
    """Integers separated by spaces, commas or line ends; # starts a comment."""
    lines = (line.split("#")[0].replace(",", " ") for line in path.read_text(encoding="utf-8").splitlines())
    return np.array([int(word) for line in lines for word in line.split()], dtype=np.int64)
