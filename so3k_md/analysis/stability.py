"""Checks the stability of a run: broken bonds, overlapping atoms, and values that are not finite."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.contacts import ClosePairs, close_pairs
from so3k_md.analysis.geometry import FARTHEST, Array, Flags, Integers, sound_frames
from so3k_md.analysis.periodicity import is_cell
from so3k_md.analysis.trajectory import Trajectory
from so3k_md.structure.bonds import covalent_radii

STRETCH = 1.5  # a bond is broken beyond this multiple of its first length
LONGEST_START = 1.3  # … where the first length counts up to this multiple of R_i + R_j
OVERLAP = 0.65  # atoms overlap below this multiple of R_i + R_j
EVENTS_KEPT = 20


class Event(NamedTuple):
    """The first fault of certain atoms."""

    kind: str  # "not a number", "overlap" or "broken bond"
    frame: int  # of the frames analysed
    time: float  # in the time unit of the trajectory
    atoms: tuple[int, ...]  # from 0
    text: str


class Stability(NamedTuple):
    """The verdict on a trajectory."""

    stable: bool
    verdict: str
    first_bad_frame: int | None
    first_bad_time: float | None
    atoms: tuple[int, ...]  # of the first event, from 0
    bad_frames: int
    frames: int
    bonds: int
    events: tuple[Event, ...]  # the first of each set of atoms, in order of time, at most twenty
    criteria: str


def broken_bonds(lengths: Array, bonds: Integers, numbers: Integers) -> Flags:
    """Whether each bond is broken, r > 1.5 min(r of the first frame, 1.3 (R_i + R_j)), (frames, bonds).

    The second limit finds bonds that are too long in the first frame, for example because the atoms have
    another order than in the topology.

    Args:
        lengths: (frames, bonds), Å.
        bonds: (bonds, 2).
        numbers: atomic numbers (atoms,).
    """
    start = np.minimum(lengths[0], LONGEST_START * covalent_radii(numbers)[bonds].sum(axis=1))
    return lengths > STRETCH * start


def overlaps(
    positions: Array, numbers: Integers, cells: Array | None, pbc: tuple[bool, bool, bool]
) -> ClosePairs:
    """Pairs of atoms closer than 0.65 (R_i + R_j), R the covalent radii.

    Args:
        positions: (frames, atoms, 3), Å; finite.
        numbers: atomic numbers (atoms,).
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
    """
    radii = covalent_radii(numbers)
    found = close_pairs(positions, cells, pbc, cutoff=max(2 * OVERLAP * float(radii.max()), 0.1))
    both = (radii[found.i] > 0) & (radii[found.j] > 0)
    near = both & (found.distance < OVERLAP * (radii[found.i] + radii[found.j]))
    return ClosePairs(found.frame[near], found.i[near], found.j[near], found.distance[near])


def finite_frames(positions: Array, cells: Array | None = None) -> int:
    """Number of frames before the first with a value that is not finite, or with an impossible cell."""
    sound = sound_frames(positions)
    bad = np.flatnonzero(~sound if cells is None else ~(sound & is_cell(cells)))
    return int(bad[0]) if len(bad) else len(positions)


def judge(data: Trajectory, lengths: Array) -> Stability:
    """The verdict; frames from the first one that is not finite are bad, and are not checked further.

    Args:
        data: the trajectory.
        lengths: of its bonds (frames, bonds), Å.
    """
    n_frames, n_finite = len(data.positions), finite_frames(data.positions, data.cells)
    bad = np.zeros(n_frames, dtype=bool)
    bad[n_finite:] = True
    events: list[Event] = []
    if n_finite < n_frames:
        events.append(no_number_event(data, n_finite))
    if n_finite:
        cells = None if data.cells is None else data.cells[:n_finite]
        near = overlaps(data.positions[:n_finite], data.numbers, cells, data.pbc)
        broken = broken_bonds(lengths[:n_finite], data.bonds, data.numbers)
        bad[near.frame] = True
        bad[:n_finite] |= broken.any(axis=1)
        events += overlap_events(near, data) + broken_events(broken, lengths, data)
    events.sort(key=lambda event: event.frame)
    first = events[0] if events else None
    return Stability(
        stable=first is None,
        verdict=phrase(first, data, int(bad.sum())),
        first_bad_frame=first.frame if first else None,
        first_bad_time=first.time if first else None,
        atoms=first.atoms if first else (),
        bad_frames=int(bad.sum()),
        frames=n_frames,
        bonds=len(data.bonds),
        events=tuple(events[:EVENTS_KEPT]),
        criteria=CRITERIA,
    )


def phrase(first: Event | None, data: Trajectory, n_bad: int) -> str:
    """The verdict as a sentence."""
    n_frames, n_bonds = len(data.positions), len(data.bonds)
    if first is None:
        watched = f"{n_bonds} bonds checked" if n_bonds else "no bonds to check"
        return f"Stable: {n_frames} frames, no bond broken, no atoms overlapping ({watched})."
    moment = f" ({first.time:g} ps)" if data.time_unit == "ps" else ""
    return f"Unstable from frame {first.frame}{moment}: {first.text}. {n_bad} of {n_frames} frames are bad."


CRITERIA = (
    f"A bond is broken if it is longer than {STRETCH} times the smaller of its length in the first frame and "
    f"{LONGEST_START} times the sum of the covalent radii. Atoms overlap if they are closer than {OVERLAP} "
    "times that sum. Atoms and frames are counted from 0."
)


def no_number_event(data: Trajectory, frame: int) -> Event:
    """The event of the first frame with positions or a cell that are not finite."""
    atoms = tuple(np.flatnonzero(~(np.abs(data.positions[frame]) < FARTHEST).all(axis=-1)).tolist())
    text = (
        f"positions that are not finite numbers, {name_atoms(atoms, data.labels)}"
        if atoms
        else "a cell that is not finite or has no volume"
    )
    return Event("not a number", frame, float(data.time[frame]), atoms, text)


def overlap_events(near: ClosePairs, data: Trajectory) -> list[Event]:
    """The first overlap of each pair of atoms."""
    events: dict[tuple[int, int], Event] = {}
    for frame, i, j, distance in zip(*(column.tolist() for column in near), strict=True):
        if (i, j) not in events:
            text = f"{name_atoms((i, j), data.labels)} overlap at {distance:.2f} Å"
            events[i, j] = Event("overlap", frame, float(data.time[frame]), (i, j), text)
    return list(events.values())


def broken_events(broken: Flags, lengths: Array, data: Trajectory) -> list[Event]:
    """The first break of each bond."""
    events = []
    for bond in np.flatnonzero(broken.any(axis=0)).tolist():
        frame = int(broken[:, bond].argmax())
        i, j = data.bonds[bond].tolist()
        name = f"{data.labels[i]}–{data.labels[j]}"
        text = f"bond {name} is broken, {lengths[frame, bond]:.2f} Å (first frame {lengths[0, bond]:.2f} Å)"
        events.append(Event("broken bond", frame, float(data.time[frame]), (i, j), text))
    return events


def name_atoms(atoms: tuple[int, ...], labels: Sequence[str]) -> str:
    """Atoms by their labels, at most four of them."""
    shown = ", ".join(labels[atom] for atom in atoms[:4])
    more = f" and {len(atoms) - 4} more" if len(atoms) > 4 else ""
    return f"{'atom' if len(atoms) == 1 else 'atoms'} {shown}{more}"
