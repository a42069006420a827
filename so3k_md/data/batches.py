"""Builds graphs and targets of frames, in batches of structures of any size."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from so3k_md.data.frames import Frame
from so3k_md.graph import COULOMB, CUTOFF_LR, Graph, collate, to_device
from so3k_md.needs import Needs, needs_of, needs_of_cutoff
from so3k_md.structure.build import build, fresh
from so3k_md.structure.groups import announce, check_reach
from so3k_md.structure.structure import checked

T = TypeVar("T")

LARGEST_BATCH = 30_000  # pairs; larger batches are not faster on a CPU and need more memory


class Targets(NamedTuple):
    """Reference labels of a batch in float64; a missing label is zero and its mask False."""

    energy: Tensor  # (frames,), eV
    forces: Tensor  # (atoms, 3), eV/Å
    stress: Tensor  # (frames, 3, 3), eV/Å³
    has_energy: Tensor  # (frames,) bool
    has_forces: Tensor  # (atoms,) bool
    has_stress: Tensor  # (frames,) bool
    dipole: Tensor  # (frames, 3), e Å
    charges: Tensor  # (atoms,), e
    hirshfeld_ratios: Tensor  # (atoms,)
    has_dipole: Tensor  # (frames,) bool
    has_charges: Tensor  # (atoms,) bool
    has_hirshfeld_ratios: Tensor  # (atoms,) bool
    volume: Tensor  # (frames,), Å³; 1 for frames without a volume
    n_atoms: Tensor  # (frames,) int64


class Batch(NamedTuple):
    """The graph of a batch of structures, and its reference labels."""

    graph: Graph
    targets: Targets

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(to_device(self.graph, device), Targets(*(tensor.to(device) for tensor in self.targets)))


class Dataset:
    """Frames whose graphs are built once and kept; arguments as in `to_graph`."""

    def __init__(self, frames: Sequence[Frame], cutoff: float, model: Any = None, groups: str = "auto"):
        self.frames = list(frames)
        self.cutoff = cutoff
        needs = needs_for(cutoff, model)
        self.graphs = [graph_of(frame, needs, model, groups) for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The frames of the given indices, in that order."""
        return Batch(
            collate([self.graphs[i] for i in indices]), to_targets([self.frames[i] for i in indices])
        )


def batches(
    dataset: Dataset,
    batch_size: int,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    most_pairs: float = math.inf,
) -> Iterator[Batch]:
    """Batches of the data set.

    Args:
        dataset: the frames.
        batch_size: frames per batch; the last one may be smaller.
        order: indices in the order of use, such as a permutation; None for the order of the file.
        most_pairs: largest number of pairs in a batch of more than one frame.
    """
    for chunk in chunks(dataset, batch_size, order, most_pairs):
        yield dataset.batch(chunk)


def chunks(
    dataset: Dataset,
    batch_size: float,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    most_pairs: float = math.inf,
) -> Iterator[list[int]]:
    """The indices of the frames of each batch; arguments as of `batches`."""
    order = np.arange(len(dataset)) if order is None else order
    return in_chunks(order, lambda index: pairs_of(dataset.graphs[index]), batch_size, most_pairs)


def pairs_of(graph: Graph) -> int:
    """Number of local and long-range pairs of a graph, which determines its memory."""
    return len(graph.idx_i) + len(graph.long.idx_i)


def in_chunks(
    items: Iterable[T], pairs: Callable[[T], int], most_items: float, most_pairs: float
) -> Iterator[list[T]]:
    """Consecutive items in lists of bounded length and bounded number of pairs.

    Args:
        items: frames, graphs or their indices.
        pairs: number of pairs of an item.
        most_items: largest number of items in a list.
        most_pairs: largest number of pairs in a list of more than one item.
    """
    chunk: list[T] = []
    total = 0
    for item in items:
        count = pairs(item)
        if chunk and (len(chunk) == most_items or total + count > most_pairs):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += count
    if chunk:
        yield chunk


def to_graph(
    frame: Frame,
    cutoff: float,
    model: Any = None,
    groups: str = "auto",
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
) -> Graph:
    """The graph of a frame.

    Args:
        frame: a structure; its reader has compared its cell with its atoms.
        cutoff: Å.
        model: the model that reads the graph; None for a local one without charges.
        groups: of non-local attention: auto, the groups of the frame, or all.
        coulomb: for models with electrostatics, one of COULOMB.
        cutoff_lr: of dispersion and of the shifted forms, Å.

    Raises:
        So3kError: two atoms at the same position, or unusable groups or charges; names file and frame.
    """
    return graph_of(frame, needs_for(cutoff, model), model, groups, coulomb, cutoff_lr)


def needs_for(cutoff: float, model: Any = None) -> Needs:
    """The needs of a model that reads graphs with this cutoff (Å); arguments as of `to_graph`."""
    return needs_of_cutoff(cutoff) if model is None else needs_of(model)._replace(cutoff=cutoff)


def graph_of(
    frame: Frame,
    needs: Needs,
    model: Any = None,
    groups: str = "auto",
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
) -> Graph:
    """`to_graph` with the needs of the model, which are read once for many frames."""
    announce(needs, groups)
    structure = checked(
        needs, frame.numbers, frame.positions, frame.cell, frame.pbc,
        where=frame.where, group=frame.group, groups=groups, charge_state=frame.charge_state, coulomb=coulomb,
    )  # fmt: skip
    graph = build(structure, fresh(needs, cutoff_lr))
    if model is not None:
        check_reach(model, needs, graph, frame.where)
    return graph


def to_targets(frames: Sequence[Frame]) -> Targets:
    """The labels of frames, concatenated."""
    sizes = torch.tensor([len(frame.numbers) for frame in frames])

    def of_frames(label: str, *shape: int) -> Tensor:
        values = [getattr(frame, label) for frame in frames]
        return torch.from_numpy(np.array([np.zeros(shape) if v is None else v for v in values], np.float64))

    def of_atoms(label: str, *shape: int) -> Tensor:
        values = [getattr(frame, label) for frame in frames]
        filled = [
            np.zeros((len(frame.numbers), *shape)) if value is None else value
            for frame, value in zip(frames, values, strict=True)
        ]
        return torch.from_numpy(np.concatenate(filled))

    def has(label: str) -> Tensor:
        return torch.tensor([getattr(frame, label) is not None for frame in frames])

    def atoms_have(label: str) -> Tensor:
        return torch.repeat_interleave(has(label), sizes)

    return Targets(
        energy=of_frames("energy"),
        forces=of_atoms("forces", 3),
        stress=of_frames("stress", 3, 3),
        has_energy=has("energy"),
        has_forces=atoms_have("forces"),
        has_stress=has("stress"),
        dipole=of_frames("dipole", 3),
        charges=of_atoms("charges"),
        hirshfeld_ratios=of_atoms("hirshfeld_ratios"),
        has_dipole=has("dipole"),
        has_charges=atoms_have("charges"),
        has_hirshfeld_ratios=atoms_have("hirshfeld_ratios"),
        volume=torch.tensor([frame.volume or 1.0 for frame in frames], dtype=torch.float64),
        n_atoms=sizes,
    )
