"""Computes the non-local attention of a model with the model's own stages."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from so3k_md.analysis.attention import Attention, LayerAttention
from so3k_md.analysis.formats.dump import is_dump
from so3k_md.analysis.topology import HDF5
from so3k_md.analysis.trajectory import load_trajectory
from so3k_md.checkpoint import eager, load, metadata
from so3k_md.data import Frame, read_frames, require_elements, to_graph
from so3k_md.errors import So3kError
from so3k_md.graph import Graph, Rows
from so3k_md.model import So3krates
from so3k_md.structure.bonds import trees
from so3k_md.structure.groups import MAX_GROUP, check_group_sizes

TRAJECTORIES = (".dcd", ".xtc", *HDF5)


def read_frame(path: str, topology: str | None, number: int, periodic: bool | None = None) -> Frame:
    """One frame of a trajectory or of a file of structures; the groups of a trajectory are its molecules.

    Args:
        path: a trajectory of OpenMM or LAMMPS, or a file that `so3k_md.data` reads.
        topology: of a trajectory.
        number: of the frame, from 0.
        periodic: whether the trajectory is periodic; None uses its own statement.

    Raises:
        So3kError: a file cannot be used, or has no such frame.
    """
    file = Path(path)
    if not (file.suffix.lower() in TRAJECTORIES or (file.is_file() and is_dump(file))):
        if topology is not None:
            raise So3kError(
                f"{path} is not a trajectory and contains its own atoms: leave out --top {topology}"
            )
        frames = read_frames(path)
        check_number(path, number, len(frames))
        return frames[number]
    data = load_trajectory(file, topology, periodic=periodic)
    check_number(path, number, len(data.positions))
    return Frame(
        numbers=data.numbers.astype(np.int64),
        positions=data.positions[number],
        cell=None if data.cells is None else data.cells[number],
        pbc=np.array(data.pbc),
        energy=None,
        forces=None,
        stress=None,
        place=number,
        source=path,
        group=trees(len(data.numbers), data.bonds)[1],
    )


def check_number(path: str, number: int, n_frames: int) -> None:
    """Refuse the number of a frame that does not exist."""
    if not 0 <= number < n_frames:
        raise So3kError(f"{path} has {n_frames} frames, --frame is {number}: choose from 0 to {n_frames - 1}")


def nonlocal_attention(model_path: str, frame: Frame, groups: str = "auto") -> Attention:
    """The non-local attention within the largest group of a frame, the first of groups of equal size.

    Args:
        model_path: checkpoint, exported file or name of a model with nonlocal: sphc.
        frame: a structure.
        groups: auto, for the groups of the frame, or all.

    Raises:
        So3kError: the model has no such attention or does not know an element, or the groups are not usable.
    """
    model: Any = eager(load(model_path, dtype="float64"))
    needs = model.needs
    if needs.nonlocal_kind != "sphc":
        raise So3kError(
            f"{model_path} has nonlocal: {needs.nonlocal_kind}, which has no attention weights of pairs: "
            "use a model with nonlocal: sphc for --attention"
        )
    require_elements([frame], needs.elements)
    graph = to_graph(frame, needs.cutoff, model, groups)
    check_group_sizes(graph.group, needs, MAX_GROUP, frame.where)
    sizes = np.bincount(graph.group)
    atoms = np.flatnonzero(graph.group.numpy() == sizes.argmax())
    if len(atoms) < 2:
        raise So3kError(
            f"{frame.where}: no group has two atoms, so there is no pair to show: choose another frame"
        )
    return Attention(
        model=str(metadata(model).get("name") or model_path),
        source=frame.source,
        frame=frame.place,
        groups=len(sizes),
        atoms=atoms,
        names=tuple(f"{chemical_symbols[z]}{k}" for k, z in enumerate(frame.numbers[atoms])),
        degrees=tuple(model.config.degrees),
        cutoff=needs.cutoff,
        layers=tuple(layer_by_layer(model, graph, atoms)),
    )


def layer_by_layer(model: So3krates, graph: Graph, atoms: NDArray[np.int64]) -> list[LayerAttention]:
    """The neighbors in SPHC space of some atoms in each layer, from the rows of each layer."""
    place = np.full(len(graph.species), -1)
    place[atoms] = np.arange(len(atoms))
    found: list[LayerAttention] = []
    _, tape = model.representation.taped(graph)
    with torch.no_grad():
        for layer, step in zip(model.representation.layers, tape.steps, strict=True):
            rows = Rows(step.inputs[0], step.inputs[1], graph.positions)
            pairs = []
            for first, last in pairwise(layer.tiles(tape.reach.groups)):
                tile = layer.sphc_pairs(rows, rows, tape.reach.groups, first, last)
                pairs.append((tile.idx_i + first, tile.idx_j, tile.r, tile.phi, tile.alpha))
            idx_i, idx_j, r, phi, alpha = (torch.cat(part).numpy() for part in zip(*pairs, strict=True))
            ours = place[idx_i] >= 0
            found.append(
                LayerAttention(place[idx_i[ours]], place[idx_j[ours]], r[ours], phi[ours], alpha[ours])
            )
    return found
