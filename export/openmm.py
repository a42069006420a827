"""The artefact as OpenMM calls it: positions and box in nm to energy in kJ/mol and forces in kJ/mol/nm.

One scripted module serves TorchForce and PythonForce. It contains vesin-torch: import `vesin_torch` before
loading a file or an XML that holds it.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vesin_torch import NeighborList

from so3k_md.errors import So3kError
from so3k_md.export.contract import check_elements
from so3k_md.forces import edge_gradient, pair_forces
from so3k_md.graph import Graph
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM
from so3k_md.verlet import SKIN, VerletList, wrap

ERROR_TAG = "[so3k]"


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
    """

    cutoff: float
    elements: list[int]
    metadata: str
    format_version: int
    species: Tensor
    frame: Tensor
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
    ):
        super().__init__()
        # TorchForce hands on attributes but not the extra files of an artefact
        self.cutoff = model.cutoff
        self.elements = model.elements
        self.metadata = model.metadata
        self.format_version = model.format_version
        self.periodic = periodic
        self.n_particles = n_particles
        self.nm = NM_IN_ANGSTROM
        self.energy_unit = EV_IN_KJ_MOL
        self.force_unit = EV_IN_KJ_MOL * NM_IN_ANGSTROM
        self.model = model
        self.pairs = VerletList(PairSearch(model.cutoff + skin), model.cutoff, skin)
        self.register_buffer("species", torch.tensor(numbers, dtype=torch.int64))
        self.register_buffer("frame", torch.zeros(len(numbers), dtype=torch.int64))
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
        vectors.requires_grad_()
        energies = self.model(Graph(self.species, vectors, idx_i, idx_j, self.frame))
        gradient = edge_gradient(energies, vectors, False)
        with torch.no_grad():
            forces = torch.zeros((self.n_particles, 3), dtype=torch.float64, device=device)
            forces[self.rows] = pair_forces(gradient, idx_i, idx_j, self.rows.size(0)) * self.force_unit
            return energies.sum() * self.energy_unit, forces.to(
                positions.device, positions.dtype
            ).contiguous()


def check_finite(positions: Tensor, rows: Tensor) -> None:
    """Stop with the particle's number where a position is NaN or infinite."""
    if not bool(torch.isfinite(positions).all()):
        bad = torch.nonzero(~torch.isfinite(positions).all(1))[0]
        particle = int(rows[bad].item())
        raise RuntimeError(f"[so3k] the position of particle {particle} is not a finite number")


def script_for_openmm(
    model: nn.Module,
    numbers: Sequence[int],
    rows: Sequence[int] | None = None,
    n_particles: int | None = None,
    periodic: bool = False,
    skin: float = SKIN,
) -> torch.jit.ScriptModule:
    """The module that a TorchForce (with `setOutputsForces(True)`) or a PythonForce calls.

    Args:
        model: an eager or exported model; it is copied.
        numbers: atomic numbers of the atoms that the model describes (atoms,).
        rows: their rows among OpenMM's particles; all by default.
        n_particles: number of OpenMM's particles; `len(numbers)` by default.
        periodic: whether forward gets a box.
        skin: of the Verlet list, Å.

    Raises:
        So3kError: an element that the model does not know, or numbers and rows that do not fit.
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
    with torch.no_grad():  # else the copies of scripted parameters are not leaves
        still = copy.deepcopy(model).eval()
    for parameter in still.parameters():
        parameter.requires_grad = False
    return torch.jit.script(OpenMMModule(still, list(numbers), rows, n_particles, periodic, skin).eval())


def check_rows(rows: Sequence[int], n_atoms: int, n_particles: int) -> None:
    """Refuse rows that do not name each atom's particle."""
    if n_atoms == 0 or n_atoms != len(rows):
        raise So3kError(f"{n_atoms} elements for {len(rows)} atoms: give one for each, and at least one")
    if min(rows) < 0 or max(rows) >= n_particles or len(set(rows)) != n_atoms:
        raise So3kError(f"atoms must be different numbers from 0 to {n_particles - 1}: correct the list")
