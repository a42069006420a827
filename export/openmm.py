"""The artefact as OpenMM calls it: positions and box in nm to energy in kJ/mol and forces in kJ/mol/nm.

One scripted module serves TorchForce and PythonForce. It contains vesin-torch: import `vesin_torch` before
loading a file or an XML that holds it.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from vesin_torch import NeighborList

from so3k_md.errors import So3kError
from so3k_md.export.contract import check_elements
from so3k_md.forces import pair_forces
from so3k_md.graph import Graph, no_long_range
from so3k_md.groups import check_axes, lattice_waves
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM
from so3k_md.unwrap import unwrap
from so3k_md.verlet import SKIN, VerletList, wrap

ERROR_TAG = "[so3k]"
LONGEST_LINK = 0.45  # of the thinnest box height; up to one half, less what a link grows in a step


class PairSearch(nn.Module):
    """Every pair and every image within a distance, on CPU and CUDA.

    Args:
        cutoff: Å.
    """

    def __init__(self, cutoff: float):
        super().__init__()
        self.vesin = NeighborList(cutoff, full_list=True)

    def forward(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """idx_i, idx_j (pairs,) and shifts (pairs, 3) of positions in any image."""
        points, images = wrap(positions, cell, pbc, cutoff)
        found = self.vesin.compute(points, cell, pbc, "ijS")
        idx_i, idx_j = found[0].to(torch.int64), found[1].to(torch.int64)
        shifts = found[2] + images.index_select(0, idx_i) - images.index_select(0, idx_j)
        return idx_i, idx_j, shifts


class OpenMMModule(nn.Module):
    """Energy and forces of the atoms that a model describes, in OpenMM's units.

    Args:
        model: the artefact, or an eager model.
        numbers: atomic numbers of the atoms described (atoms,).
        rows: their rows among OpenMM's particles (atoms,).
        n_particles: number of OpenMM's particles; others get no force.
        periodic: whether a box comes with the positions.
        skin: of the Verlet list, Å.
        group: of each atom, from 0, within which attention reaches beyond the cutoff (atoms,).
        parent: the atom to which each is linked, so that groups can be made whole (atoms,); None to take
            the images as they come.
        bonds: pairs that must be near each other once groups are whole, beside the links (bonds, 2).
    """

    cutoff: float
    elements: list[int]
    metadata: str
    format_version: int
    nonlocal_kind: str
    species: Tensor
    frame: Tensor
    group: Tensor
    parent: Tensor
    links: Tensor
    rows: Tensor
    pbc: Tensor
    open_cell: Tensor

    def __init__(
        self,
        model: Any,
        numbers: Sequence[int],
        rows: Sequence[int],
        n_particles: int,
        periodic: bool,
        skin: float,
        group: Sequence[int],
        parent: Sequence[int] | None,
        bonds: ArrayLike,
    ):
        super().__init__()
        # TorchForce hands on attributes but not the extra files of an artefact
        self.cutoff = model.cutoff
        self.elements = model.elements
        self.metadata = model.metadata
        self.format_version = model.format_version
        self.nonlocal_kind = model.nonlocal_kind
        self.periodic = periodic
        self.make_whole = parent is not None
        self.longest_link = LONGEST_LINK
        self.n_particles = n_particles
        self.nm = NM_IN_ANGSTROM
        self.energy_unit = EV_IN_KJ_MOL
        self.force_unit = EV_IN_KJ_MOL * NM_IN_ANGSTROM
        self.model = model
        self.pairs = VerletList(PairSearch(model.cutoff + skin), model.cutoff, skin)
        self.register_buffer("species", torch.tensor(numbers, dtype=torch.int64))
        self.register_buffer("frame", torch.zeros(len(numbers), dtype=torch.int64))
        self.register_buffer("group", torch.tensor(group, dtype=torch.int64))
        parents = np.array(parent or [], dtype=np.int64)
        links = np.concatenate([np.stack([np.arange(len(parents)), parents], 1), np.reshape(bonds, (-1, 2))])
        self.register_buffer("parent", torch.from_numpy(parents))
        self.register_buffer("links", torch.from_numpy(links.astype(np.int64)))
        self.register_buffer("rows", torch.tensor(rows, dtype=torch.int64))
        self.register_buffer("pbc", torch.full((3,), periodic))
        self.register_buffer("open_cell", torch.eye(3, dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy (), float64, kJ/mol, and forces (particles, 3), kJ/mol/nm, in the type of the positions.

        Args:
            positions: of all particles, in any image, (particles, 3), nm.
            box: periodic box vectors as rows, (3, 3), nm.
        """
        device = self.species.device  # OpenCL platforms keep positions on the CPU
        with torch.no_grad():
            mine = positions.to(device, torch.float64).index_select(0, self.rows) * self.nm
            check_finite(mine, self.rows)
            cell = self.open_cell
            if box is not None:
                cell = box.to(device, torch.float64) * self.nm
            vectors, idx_i, idx_j = self.pairs(mine, cell, self.pbc)
            if self.make_whole:
                mine = unwrap(mine, cell, self.pbc, self.parent)
                check_links(mine, self.links, cell, self.longest_link, self.rows)
            lattice = (cell * self.pbc).unsqueeze(0)
        long = no_long_range(self.frame, 1)
        graph = Graph(self.species, vectors, idx_i, idx_j, self.frame, mine, self.group, lattice, long)
        slopes = self.model.gradient(graph)
        with torch.no_grad():
            pulls = pair_forces(slopes.vectors, idx_i, idx_j, self.rows.size(0)) - slopes.positions
            forces = torch.zeros((self.n_particles, 3), dtype=torch.float64, device=device)
            forces[self.rows] = pulls * self.force_unit
            energy = slopes.energies.sum() * self.energy_unit
            return energy, forces.to(positions.device, positions.dtype).contiguous()


def check_finite(positions: Tensor, rows: Tensor) -> None:
    """Stop with the particle's number where a position is NaN or infinite."""
    if not bool(torch.isfinite(positions).all()):
        bad = torch.nonzero(~torch.isfinite(positions).all(1))[0]
        particle = int(rows[bad].item())
        raise RuntimeError(
            f"[so3k] the position of particle {particle} is not a finite number: minimise first, take a "
            "shorter time step, or check the model"
        )


def check_links(positions: Tensor, links: Tensor, cell: Tensor, longest: float, rows: Tensor) -> None:
    """Stop where the ends of a link are so far apart that it might as well lead to another image.

    Args:
        positions: of whole groups, (atoms, 3), Å.
        links: pairs of atoms (links, 2).
        cell: (3, 3), Å.
        longest: link that is allowed, as a share of the smallest height of the cell.
        rows: what the atoms are called in the message, (atoms,).
    """
    vectors = positions.index_select(0, links[:, 0]) - positions.index_select(0, links[:, 1])
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    height = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(cell), dim=0).max()
    if bool(lengths.max() > longest * height):
        link = lengths.argmax()
        first, second = int(rows[links[link, 0]].item()), int(rows[links[link, 1]].item())
        # TorchScript prints all 17 digits of a float
        length_pm, limit_pm = int(100.0 * lengths[link].item()), int(100.0 * longest * height.item())
        raise RuntimeError(
            f"[so3k] particles {first} and {second}, linked in one group of the non-local attention, are "
            f"{length_pm} pm apart, {limit_pm} pm at most are allowed in this box: a bond has broken, the "
            "group drifts apart, or it goes on through the walls; take a larger box, or other groups"
        )


def script_for_openmm(
    model: nn.Module,
    numbers: Sequence[int],
    rows: Sequence[int] | None = None,
    n_particles: int | None = None,
    periodic: bool = False,
    skin: float = SKIN,
    group: ArrayLike | None = None,
    parent: ArrayLike | None = None,
    bonds: ArrayLike = (),
) -> torch.jit.ScriptModule:
    """The module that a TorchForce (with `setOutputsForces(True)`) or a PythonForce calls.

    Args:
        model: an eager or exported model; it is copied.
        numbers: atomic numbers of the atoms that the model describes (atoms,).
        rows: their rows among OpenMM's particles; all by default.
        n_particles: number of OpenMM's particles; `len(numbers)` by default.
        periodic: whether forward gets a box.
        skin: of the Verlet list, Å.
        group: whole numbers, equal within the groups of a non-local model (atoms,); one group by default.
        parent: for a non-local model in a box, trees of short links that hold the groups together: the atom
            before each, a root being its own (atoms,); 0, 1, 2, … to take the images as they come.
        bonds: further pairs that must be near each other in a whole group (bonds, 2).

    Raises:
        So3kError: an element that the model does not know; numbers, rows, groups or links that do not fit.
    """
    # the CPU has no fuser, but would look for fusions during the first steps, for seconds
    torch.jit.set_fusion_strategy([])
    rows = list(range(len(numbers))) if rows is None else list(rows)
    n_particles = len(numbers) if n_particles is None else n_particles
    if not skin >= 0:
        raise So3kError(f"skin = {skin} Å is impossible: give 0 or a positive length")
    check_rows(rows, len(numbers), n_particles)
    elements: Any = model.elements
    check_elements(numbers, elements)
    numbered = np.unique(np.zeros(len(numbers)) if group is None else group, return_inverse=True)[1].tolist()
    links = checked_tree(parent, numbered) if needs_links(model, periodic) else None
    with torch.no_grad():  # else the copies of scripted parameters are not leaves
        still = copy.deepcopy(model).eval()
    for parameter in still.parameters():
        parameter.requires_grad = False
    module = OpenMMModule(still, list(numbers), rows, n_particles, periodic, skin, numbered, links, bonds)
    return torch.jit.script(module.eval())


def needs_links(model: Any, periodic: bool) -> bool:
    """Whether it matters in which image the atoms of a group lie.

    It does not in an open system, nor to waves of the lattice itself.

    Raises:
        So3kError: waves of the lattice in an open system.
    """
    check_axes(model, periodic, "the system")
    return periodic and model.nonlocal_kind != "none" and not lattice_waves(model)


def checked_tree(parent: ArrayLike | None, group: list[int]) -> list[int] | None:
    """The links as a list, None if there are none, or a refusal of what is not one tree for each group."""
    if parent is None:
        raise So3kError(
            "a model with non-local attention in a periodic box needs the links that hold its groups "
            "together: give `parent`, as so3k_md.groups.spanning_tree makes it"
        )
    end = links = np.asarray(parent)
    numbers = np.asarray(group)
    if np.array_equal(links, np.arange(len(numbers))):
        return None
    fits = links.shape == numbers.shape and links.dtype.kind == "i"
    fits = fits and 0 <= links.min() <= links.max() < len(links)
    if fits:
        for _ in range(len(links).bit_length()):
            end = end[end]
        roots = len(np.unique(end)) == len(np.unique(numbers)) and np.array_equal(links[end], end)
        fits = roots and np.array_equal(numbers[links], numbers)
    if not fits:
        raise So3kError("parent is not one tree for each group: let so3k_md.groups.spanning_tree make it")
    return links.tolist()


def check_rows(rows: Sequence[int], n_atoms: int, n_particles: int) -> None:
    """Refuse rows that do not name each atom's particle."""
    if n_atoms == 0 or n_atoms != len(rows):
        raise So3kError(f"{n_atoms} elements for {len(rows)} atoms: give one for each, and at least one")
    if min(rows) < 0 or max(rows) >= n_particles or len(set(rows)) != n_atoms:
        raise So3kError(f"atoms must be different numbers from 0 to {n_particles - 1}: correct the list")
