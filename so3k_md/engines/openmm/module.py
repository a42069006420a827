"""The module that OpenMM calls: positions and box in nm to energy in kJ/mol and forces in kJ/mol/nm.

TorchForce and PythonForce call the same scripted module. It contains vesin-torch: import `vesin_torch` before
loading a file or an XML with this module. For compiled kernels also call
`so3k_md.kernels.build.load_kernels`.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from so3k_md.engines.openmm.checks import (
    check_finite,
    check_rows,
    checked_tree,
    extent,
    extent_fault,
    link_fault,
    link_lengths,
    output_fault,
    scatter_fault,
    scattered,
)
from so3k_md.engines.openmm.particles import GraphOfParticles, gradient_of_tensors, graph_tensors
from so3k_md.engines.openmm.trials import Trials
from so3k_md.graph import COULOMB, CUTOFF_LR, Gradient, Graph
from so3k_md.kernels.choose import is_compiled, is_for_gpus
from so3k_md.model import still_copy
from so3k_md.model.known import tell
from so3k_md.needs import Needs, needs_of
from so3k_md.nn.segment import pair_forces
from so3k_md.reads import reads_are_free
from so3k_md.structure.charges import ChargeState, GivenChargeState, resolve_charge_state
from so3k_md.structure.coulomb import check_coulomb
from so3k_md.structure.elements import check_elements
from so3k_md.structure.groups import images_matter
from so3k_md.structure.lists import SKIN, check_skin
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

ERROR_TAG = "[so3k]"
LONGEST_LINK = 0.45  # of the smallest box height; below one half, because a link can grow during a step


class Report(NamedTuple):
    """Predictions of the model besides energy and forces; see `OpenMMModule.report`."""

    charges: Tensor  # (atoms,), e
    ratios: Tensor  # (atoms,), Hirshfeld volumes over those of free atoms
    parts: Tensor  # (4,), parts of the energy in the order of `graph.PARTS`, kJ/mol
    dipole: Tensor  # (3,), Σ q r of the atoms in the images that the model gets, e Å


class OpenMMModule(nn.Module):
    """Energy and forces of the atoms that a model describes, in OpenMM's units.

    A shared model is an object of the library of kernels, and is the same for all modules of a process. For
    each Context a TorchForce copies and compiles the code of its module. It runs this code under Python's
    lock where OpenMM's wrapper holds the lock, which torch's autograd engine refuses; the library releases
    it.

    Args:
        model: an exported or an eager model.
        seen: builds the graph of the particles.
        shared: whether the model is shared; this needs the library of kernels.
    """

    is_shared: torch.jit.Final[bool]
    has_reach: torch.jit.Final[bool]
    reserves: torch.jit.Final[bool]
    needs: Needs

    def __init__(self, model: Any, seen: GraphOfParticles, shared: bool):
        super().__init__()
        # a TorchForce keeps attributes of the module, but not the extra files of an exported file
        self.needs = needs = needs_of(model)
        self.cutoff = needs.cutoff
        self.periodic = seen.periodic
        self.longest_link = LONGEST_LINK
        self.energy_unit = EV_IN_KJ_MOL
        self.force_unit = EV_IN_KJ_MOL * NM_IN_ANGSTROM
        self.is_shared = shared
        if shared:
            self.shared: Any = shared_model(model)
        else:
            self.model = model
        # waves on a Lebedev grid limit the diameter of a group
        self.has_reach = needs.max_group_diameter > 0.0
        self.max_group_diameter = needs.max_group_diameter
        # waves of the reciprocal lattice follow from the cell, and are reserved on GPUs; older files cannot
        efa = needs.nonlocal_kind == "efa" and not self.has_reach and not shared
        self.reserves = efa and hasattr(model.representation.reach, "reserve")
        self.n_groups = int(seen.group.max()) + 1
        if self.has_reach:
            self.waves = model.representation.reach
        self.seen = seen
        self.trials = Trials()

    def forward(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy (), float64, kJ/mol, and forces (particles, 3), kJ/mol/nm, in the type of the positions.

        A trial step of a minimiser that the model cannot describe gets an infinite energy and zero forces.

        Args:
            positions: of all particles, in any image, (particles, 3), nm.
            box: periodic box vectors as rows, (3, 3), nm.
        """
        # errors are raised here or in functions, because freezing deletes methods to which an error refers
        with torch.no_grad():
            mine, cell = self.seen.lengths(positions, box)
        energy = torch.full([], math.inf, dtype=torch.float64, device=mine.device)
        own_forces, fault = torch.zeros_like(mine), ""
        # on a GPU lists and groups are first taken as they were, without a look at what is on the device; one
        # read at the end says whether that was right, and if not the step is done again with all checks
        look, done = reads_are_free(mine) or not self.seen.lists.are_made(), False
        while not done:
            done = True
            with torch.no_grad():
                certain = torch.ones([], dtype=torch.bool, device=mine.device)
                whole = mine
                if look:
                    check_finite(mine, self.seen.rows)
                    fault = self.seen.fault_of_box(cell)
                    if len(fault) == 0:
                        whole = self.seen.whole(mine, cell)
                        fault = self.fault_of_groups(whole, cell)
                        if self.reserves and not reads_are_free(cell):
                            self.model.representation.reach.reserve(cell)
                else:
                    whole, certain = self.seen.whole_unread(mine, cell)
            if len(fault) == 0:
                with torch.no_grad():
                    graph = self.seen(mine, cell, whole, look)
                gradient = self.gradient(graph)
                with torch.no_grad():
                    n_atoms = graph.species.size(0)
                    by_pairs = pair_forces(gradient.vectors, graph.idx_i, graph.idx_j, n_atoms)
                    own_forces = by_pairs - gradient.positions
                    energy = gradient.outputs.energies.sum() * self.energy_unit
                    if look:
                        fault = self.fault_of_result(graph, energy, own_forces)
                    else:
                        done = bool(certain & ~self.is_doubtful(graph, mine, cell, energy, own_forces))
            look = True
        with torch.no_grad():
            if len(fault) == 0:
                self.trials.accept(mine)
            elif self.trials.refuses(mine):
                energy, own_forces = torch.full_like(energy, math.inf), torch.zeros_like(mine)
            else:
                raise RuntimeError("[so3k] " + fault)
            forces = torch.zeros(positions.shape, dtype=torch.float64, device=own_forces.device)
            forces[self.seen.rows] = own_forces * self.force_unit
            return energy, forces.to(positions.device, positions.dtype).contiguous()

    def gradient(self, graph: Graph) -> Gradient:
        """The result of the model."""
        if self.is_shared:
            return gradient_of_tensors(
                self.shared.gradient(graph_tensors(graph), graph.long.coulomb, graph.long.cutoff)
            )
        return self.model.gradient(graph)

    def fault_of_result(self, graph: Graph, energy: Tensor, forces: Tensor) -> str:
        """Why energy () and forces (atoms, 3) are not usable; empty if they are."""
        n_atoms = graph.species.size(0)
        fault = scatter_fault(graph.vectors, graph.idx_i, self.seen.bonded, n_atoms, self.cutoff)
        return fault if len(fault) > 0 else output_fault(energy, forces, self.seen.rows)

    def is_doubtful(
        self, graph: Graph, positions: Tensor, cell: Tensor, energy: Tensor, forces: Tensor
    ) -> Tensor:
        """Whether a result without any look at the positions may be wrong, or is no result, () bool."""
        seen, whole = self.seen, graph.positions
        doubt = seen.is_stale(positions, cell) | ~torch.isfinite(energy + forces.sum())
        if seen.bonded.size(0) >= 3:
            n_atoms = graph.species.size(0)
            doubt = doubt | scattered(graph.vectors, graph.idx_i, seen.bonded, n_atoms, self.cutoff)
        if seen.check_whole:
            lengths, height = link_lengths(whole, seen.links, cell)
            doubt = doubt | ~(lengths.max() <= self.longest_link * height)
        if seen.alone:
            doubt = doubt | ~(extent(whole, cell) <= 0.5)
        if self.has_reach:
            doubt = doubt | (self.widest_group(whole) > self.max_group_diameter)
        if self.reserves:
            doubt = doubt | self.model.representation.reach.outgrown(cell)
        return doubt

    def widest_group(self, whole: Tensor) -> Tensor:
        """An upper bound of the diameter of the unwrapped groups (atoms, 3), Å."""
        return self.waves.diameter(self.waves.support(whole, self.seen.group, self.n_groups)).max()

    def fault_of_groups(self, whole: Tensor, cell: Tensor) -> str:
        """Why the unwrapped groups (atoms, 3), Å, are not usable in the cell (3, 3), Å; empty if they are."""
        fault = ""
        if self.seen.check_whole:
            fault = link_fault(whole, self.seen.links, cell, self.longest_link, self.seen.rows)
        if len(fault) == 0 and self.seen.alone:
            fault = extent_fault(whole, cell)
        if self.has_reach and len(fault) == 0:
            widest = float(self.widest_group(whole))
            if widest > self.max_group_diameter:
                fault = (
                    f"a group is {int(100.0 * widest)} pm wide, more than efa_reach = "
                    f"{self.max_group_diameter} A of this model: "
                    "use smaller groups, or a model with a larger efa_reach"
                )
        return fault

    @torch.jit.export
    def report(self, positions: Tensor, box: Tensor | None = None) -> Report:
        """Charges, Hirshfeld ratios, parts of the energy and dipole; takes the time of one step.

        Args:
            positions: of all particles, in any image, (particles, 3), nm.
            box: periodic box vectors as rows, (3, 3), nm.
        """
        with torch.no_grad():
            mine, cell = self.seen.lengths(positions, box)
            graph = self.seen(mine, cell, self.seen.whole(mine, cell))
        gradient = self.gradient(graph)
        with torch.no_grad():
            found = gradient.outputs
            parts = found.parts.sum(0) * self.energy_unit
            dipole = found.charges.to(graph.positions.dtype) @ graph.positions
            return Report(found.charges, found.ratios, parts, dipole)


def shared_model(model: nn.Module) -> Any:
    """A model as an object of the library of kernels; the same object for the same content."""
    scripted = model if isinstance(model, torch.jit.ScriptModule) else torch.jit.script(model)
    content = bytearray(scripted.save_to_buffer())
    return torch.classes.so3k.SharedModel(torch.frombuffer(content, dtype=torch.uint8))


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
    charge_state: ChargeState | None = None,
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
    cluster: ArrayLike | None = None,
    bonded: ArrayLike = (),
    shared: bool = False,
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
        parent: for a non-local model in a box, the parent of each atom in the tree of short links of its
            group; a root is its own parent (atoms,); 0, 1, 2, … to use the given images.
        bonds: further pairs that must be near each other in an unwrapped group (bonds, 2).
        charge_state: charge, spin and fragments; a neutral singlet by default.
        coulomb: for models with electrostatics, one of COULOMB.
        cutoff_lr: of dispersion and of the shifted forms, Å.
        cluster: for coulomb = kspace of some atoms of a box: the parent of each atom in one tree of all these
            atoms (atoms,); each is in the image nearest to its parent. None for the lattice sum.
        bonded: atoms that have bonds, of which at least one must have a neighbor (bonded,).
        shared: see `OpenMMModule`; a model with compiled kernels is always shared.

    Raises:
        So3kError: an element that the model does not know; numbers, rows, groups or links that do not fit;
            a charge state that cannot be.
    """
    # on CPUs torch fuses nothing, but would search for fusions for seconds in the first steps
    torch.jit.set_fusion_strategy([])
    rows = list(range(len(numbers))) if rows is None else list(rows)
    n_particles = len(numbers) if n_particles is None else n_particles
    check_skin(skin)
    check_rows(rows, len(numbers), n_particles)
    needs = needs_of(model)
    check_elements(numbers, needs.elements)
    numbered = np.unique(np.zeros(len(numbers)) if group is None else group, return_inverse=True)[1].tolist()
    links = checked_tree(parent, numbered) if images_matter(needs, periodic, "the system") else None
    alone = cluster is not None
    if alone:
        links = checked_tree(cluster, [0] * len(numbers))
    check_coulomb(coulomb, cutoff_lr)
    still = still_copy(model)
    if charge_state is None:
        charge_state = resolve_charge_state(needs, numbers, GivenChargeState(), "the system")
    on_gpu = is_for_gpus(still)
    seen = GraphOfParticles(
        needs,
        numbers,
        rows,
        periodic,
        skin,
        numbered,
        links,
        bonds,
        charge_state,
        alone,
        bonded,
        coulomb,
        cutoff_lr,
        on_gpu,
    )
    shared = shared or is_compiled(still)
    if on_gpu or not shared:  # a shared model serves other groups as well, unless reads cost time
        tell(still, periodic and not alone, numbered)
    module = torch.jit.script(OpenMMModule(still, seen, shared).eval())
    # torch never frees scripted code, nor its copies and frozen forms, one for each Context; it frees loaded
    # code with its last user
    return torch.jit.load(io.BytesIO(module.save_to_buffer()))
