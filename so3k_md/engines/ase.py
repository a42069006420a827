"""The ASE calculator of So3krates models, for all simulations and optimisers of ASE."""

import copy
import inspect
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import ArrayLike, NDArray
from torch import nn

from so3k_md.checkpoint import eager, metadata, parse_device
from so3k_md.config import nearest
from so3k_md.data.references import warn_incomparable
from so3k_md.data.structures import given_charge_state
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.graph import COULOMB, CUTOFF_LR, PARTS, Graph, to_device
from so3k_md.kernels.choose import accelerated, frozen, is_compiled, load_frozen, own_model
from so3k_md.model import set_dtype, still_copy
from so3k_md.model.forces import Evaluation, check_finite, evaluate
from so3k_md.model.hessian import hessian
from so3k_md.needs import needs_of
from so3k_md.structure.build import build, kept
from so3k_md.structure.charges import UNUSED, GivenChargeState, combined, refuse_unknown, says_something
from so3k_md.structure.contacts import CloseWatch
from so3k_md.structure.coulomb import check_coulomb
from so3k_md.structure.groups import MAX_GROUP, announce, check_reach
from so3k_md.structure.lists import SKIN, check_skin
from so3k_md.structure.structure import Structure, checked, moved

ARRAYS = ("positions", "numbers", "group")  # of `Atoms.arrays`
CHARGE_STATE = (
    "charge",
    "spin",
    "fragments",
    "fragment_charges",
)  # keywords, in the order of GivenChargeState
OF_ASE = ("restart", "ignore_bad_restart_file", "label", "atoms", "directory")
WHERE = "the structure"
REMEDY = "give its lattice vectors in Å, or set atoms.pbc = False if there is none"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class So3kCalculator(Calculator):
    """Energy, forces, stress and per-atom energies in eV and Å.

    The stress is −virial / volume, for structures with a volume and a periodic axis. Non-local attention acts
    within groups, given by whole numbers in `atoms.arrays["group"]`. Molecules may cross the boundary of the
    cell.

    Args:
        model: a checkpoint, an exported file, the name of a bundled model, or a model, which is copied.
        device: device on which the model is evaluated.
        dtype: precision of the parameters, float32 or float64; None keeps the model's.
        skin: of the neighbor list, Å; twice this for long-range pairs; 0 makes a new list at each step.
        groups: for non-local models. auto: the array `group`; without it an open structure is one group. all:
            each structure is one group, with its atoms in the given images.
        max_group: largest group that an sphc model accepts, atoms.
        coulomb: for models with electrostatics. kspace: the exact sum, over the lattice of a periodic cell or
            over all pairs of an open structure; shifted: cut off at `cutoff_lr` as in the reference codes;
            shifted+self: the same with the energy of each charge in its own potential.
        cutoff_lr: of dispersion and of the shifted forms, Å.
        kernels: auto, to use the compiled kernels if they are built; on; or off.
        charge: total charge, e, of each structure without its own in `atoms.info["charge"]`.
        spin: S of each structure without its own; 0 for a singlet.
        fragments: whole numbers (atoms,), equal within a fragment, of each structure without its own in
            `atoms.arrays["fragment"]`. No charge flows between fragments.
        fragment_charges: e, one for each fragment in rising order of its number, or by its number; of each
            structure without its own.
        **kwargs: of `ase.calculators.calculator.Calculator`.

    Raises:
        So3kError: an option that is unknown or impossible, no such model, or a charge for a model that does
            not use it.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    implemented_properties += ["charges", "hirshfeld_ratios", "dipole"]

    def __init__(
        self,
        model: str | Path | nn.Module,
        device: str = "cpu",
        dtype: torch.dtype | str | None = None,
        skin: float = SKIN,
        groups: str = "auto",
        max_group: int = MAX_GROUP,
        coulomb: str = COULOMB[0],
        cutoff_lr: float = CUTOFF_LR,
        kernels: str = "auto",
        charge: float | None = None,
        spin: float | None = None,
        fragments: ArrayLike | None = None,
        fragment_charges: ArrayLike | Mapping[Any, float] | None = None,
        **kwargs: Any,
    ):
        if unknown := sorted(set(kwargs) - set(OF_ASE)):
            known = list(inspect.signature(So3kCalculator).parameters)[:-1] + list(OF_ASE)
            raise So3kError(f"So3kCalculator has no option {unknown[0]!r}: {nearest(unknown[0], known)}")
        super().__init__(**kwargs)
        check_skin(skin)
        self.device = parse_device(device)
        if isinstance(model, nn.Module):
            self.model = own_model(model, device, dtype, kernels)
            self.frozen = frozen(self.model)
        else:
            self.model, self.frozen = load_frozen(model, device, dtype, kernels)
        self.needs = needs_of(self.model)
        check_coulomb(coulomb, cutoff_lr)
        announce(self.needs, groups)
        self.groups = groups
        self.max_group = max_group
        self.coulomb, self.cutoff_lr = coulomb, cutoff_lr
        self.kernels = kernels
        given = GivenChargeState(charge, spin, fragments, fragment_charges)
        self.set(
            **{name: value for name, value in zip(CHARGE_STATE, given, strict=True) if value is not None}
        )
        self.watch = CloseWatch()
        self.warnings_given: set[str] = set()  # these are not repeated
        self.last: Structure | None = None
        self.checked_inputs: dict[str, Any] = {}  # of the last structure
        self.lists = kept(self.needs, cutoff_lr, skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties at once, because forces and stress come from the same gradient."""
        super().calculate(atoms, properties, system_changes)
        graph = self.graph(self.atoms)
        result = self.evaluation(graph)
        self.results = {
            "energy": result.energy.item(),
            "free_energy": result.energy.item(),
            "energies": result.outputs.energies.numpy(force=True),
            "forces": result.forces.numpy(force=True),
        }
        if self.needs.has_zbl or self.needs.has_long_range:
            parts = result.outputs.parts.sum(0).tolist()
            self.results["energy_parts"] = dict(zip(PARTS, parts, strict=True))
        if self.needs.has_long_range:
            charges = result.outputs.charges.numpy(force=True).astype(np.float64)
            self.results["charges"] = charges
            self.results["hirshfeld_ratios"] = result.outputs.ratios.numpy(force=True).astype(np.float64)
            self.results["dipole"] = charges @ self.atoms.positions
            self.results["energy_shift"] = self.needs.energy_shift * len(self.atoms)
            self.results["coulomb"] = self.coulomb
        if self.atoms.pbc.any() and self.atoms.cell.rank == 3:
            stress = -result.virial[0].numpy(force=True) / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def evaluation(self, graph: Graph) -> Evaluation:
        """What the model says of one structure; refuses what is not finite."""
        result = evaluate(self.frozen, graph, 1)
        check_finite(result, graph)
        return result

    def second_derivatives(self, graph: Graph) -> torch.Tensor:
        """The Hessian in float64 by plain layers, (3 atoms, 3 atoms), eV/Å²."""
        plain = set_dtype(still_copy(eager(self.model)), torch.float64).to(self.device)
        return hessian(plain, graph)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change charge, spin or fragments of all structures, and forget the results.

        Raises:
            So3kError: another parameter is given, or the model does not use charges.
        """
        if fixed := sorted(name for name in kwargs if name not in CHARGE_STATE):
            raise So3kError(
                f"{fixed[0]} cannot be set, only {', '.join(CHARGE_STATE)}: make a new calculator for "
                "other options"
            )
        if kwargs:
            refuse_unknown(self.needs, given_options(self.parameters | kwargs), "So3kCalculator")
            self.reset()
            self.checked_inputs = {}
        changed: dict[str, Any] = super().set(**kwargs)
        return changed

    def __getstate__(self) -> dict[str, Any]:
        """All but the compiled form, which `__setstate__` makes again on the machine that loads it."""
        state = self.__dict__ | {"frozen": None}
        if is_compiled(self.model):
            state["model"] = eager(self.model)
        elif isinstance(self.model, torch.jit.ScriptModule):
            state["model"] = bytes(self.model.save_to_buffer())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.model, bytes):
            self.model = torch.jit.load(io.BytesIO(self.model), map_location=self.device)
        self.model = accelerated(self.model.to(self.device), self.kernels)
        self.frozen = frozen(self.model)

    def __deepcopy__(self, memo: dict[int, Any]) -> "So3kCalculator":
        """Another calculator of the same model."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        shared = {"model": self.model, "frozen": self.frozen}
        rest = {name: value for name, value in self.__dict__.items() if name not in shared}
        copied.__dict__.update(copy.deepcopy(rest, memo) | shared)
        return copied

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As in ASE; also results which ASE's sums of calculators could not add.

        `energy_parts` is a dictionary, eV. `hessian` is ∂²E/∂r∂r, (3 atoms, 3 atoms), eV/Å², as
        `ase.vibrations.VibrationsData.from_2d` takes it. It is computed on demand in float64 by plain layers.
        """
        if name not in ("energy_parts", "hessian"):
            return super().get_property(name, atoms, allow_calculation)
        energy = super().get_property("energy", atoms, allow_calculation)
        if name == "hessian" and energy is not None and name not in self.results and allow_calculation:
            self.results[name] = self.second_derivatives(self.graph(self.atoms)).numpy(force=True)
        return self.results.get(name)

    def export_properties(self) -> Properties:
        """The results whose names ASE knows."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Changes since the last calculation, compared exactly; ASE itself does not compare groups."""
        if self.atoms is None:
            return list(all_changes)
        before, now = inputs_of(self.atoms), inputs_of(atoms)
        return [name for name in now if not same(before[name], now[name])]

    def graph(self, atoms: Atoms) -> Graph:
        """The graph of the atoms."""
        builds = self.lists.near.builds
        graph = build(self.structure(atoms), self.lists)
        if self.lists.near.builds > builds:
            vectors, idx_i, idx_j = (tensor.numpy() for tensor in (graph.vectors, graph.idx_i, graph.idx_j))
            self.watch.look(atoms.numbers, atoms.positions, vectors, idx_i, idx_j)
        if self.needs.max_group_diameter > 0:
            check_reach(self.model, self.needs, graph, WHERE)
        return to_device(graph, self.device)

    def structure(self, atoms: Atoms) -> Structure:
        """The checked structure; properties that stay the same while atoms move are checked once."""
        now = inputs_of(atoms) | {"positions": None, "initial": atoms.arrays.get("initial_charges")}
        if (
            self.last
            and self.checked_inputs
            and all(same(now[name], self.checked_inputs[name]) for name in now)
        ):
            self.last = moved(self.last, atoms.positions)
            return self.last
        given = combined(given_options(self.parameters), given_charge_state(atoms), WHERE)
        self.warn_of_charge(atoms, given)
        if self.last is None or not np.array_equal(self.last.numbers, atoms.numbers):
            warn_incomparable(atoms.numbers, metadata(self.model))
        self.last = checked(
            self.needs,
            atoms.numbers,
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            where=WHERE,
            remedy=REMEDY,
            group=atoms.arrays.get("group"),
            groups=self.groups,
            max_group=self.max_group,
            charge_state=given,
            coulomb=self.coulomb,
        )
        self.checked_inputs = copy.deepcopy(now)
        return self.last

    def warn_of_charge(self, atoms: Atoms, given: GivenChargeState) -> None:
        """Warn once of charge, spin or fragments that are not used."""
        if not self.needs.has_charge_state and says_something(given):
            self.warn_once(UNUSED)
        initial = float(atoms.get_initial_charges().sum()) if atoms.has("initial_charges") else 0.0
        no_total = given.charge is None and given.fragment_charges is None
        if self.needs.has_charge_state and no_total and abs(initial) > 0.5:
            self.warn_once(
                f"the initial charges of the atoms add up to {initial:+.3g} e and are not used: give the "
                'total charge in atoms.info["charge"] or So3kCalculator(charge=…), 0 if it is neutral'
            )

    def warn_once(self, message: str) -> None:
        """Give a warning once for this calculator."""
        if message not in self.warnings_given:
            self.warnings_given.add(message)
            warnings.warn(message, So3kWarning, stacklevel=3)


def inputs_of(atoms: Atoms) -> dict[str, Any]:
    """All properties of a structure on which the energy may depend."""
    known: dict[str, Any] = {name: atoms.arrays.get(name) for name in ARRAYS}
    return known | {"cell": atoms.cell.array, "pbc": atoms.pbc} | given_charge_state(atoms)._asdict()


def same(a: Any, b: Any) -> bool:
    """Whether two inputs are equal; most of them are None."""
    return a is b or np.array_equal(a, b)


def given_options(parameters: Mapping[str, Any]) -> GivenChargeState:
    """Charge, spin and fragments from the keywords of a calculator."""
    return GivenChargeState(*(parameters.get(name) for name in CHARGE_STATE))
