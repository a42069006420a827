"""Checks each exported file before it gets its name."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from so3k_md.checkpoint import load_torchscript
from so3k_md.errors import So3kError
from so3k_md.export.contract import missing
from so3k_md.graph import COULOMB, CUTOFF_LR, Graph
from so3k_md.kernels.choose import frozen
from so3k_md.model import So3krates, set_dtype
from so3k_md.model.forces import Evaluation, evaluate, tensors_of
from so3k_md.needs import Needs
from so3k_md.structure.build import build, fresh
from so3k_md.structure.charges import neutral
from so3k_md.structure.structure import Structure, moved

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative to the largest value
SPACINGS = (1.3, 1.6, 2.0, 2.5, 3.0)  # Å; trained models can diverge for overlapping atoms, so wider follow
BOX = 20.0  # Å
LARGEST_FORCE = 1e3  # eV/Å, largest force of a usable cluster
STEPS = (1e-4, 2e-5)  # Å, of the finite differences; the end of a cutoff hardly lies within both
FINITE_DIFFERENCE_TOLERANCE = 1e-6  # eV/Å, relative to the largest force


def probe(needs: Needs, spacing: float = 1.3) -> tuple[Tensor, Callable[[Tensor], Graph]]:
    """A disordered cluster of the model's elements in a box: positions, and the function positions -> graph.

    Args:
        needs: of the model.
        spacing: of the lattice before it is disordered, Å.
    """
    side = torch.arange(3, dtype=torch.float64)
    lattice = spacing * torch.cartesian_prod(side, side, side[:2])
    generator = torch.Generator().manual_seed(7)
    positions = lattice + 0.2 * torch.randn(lattice.shape, generator=generator, dtype=torch.float64)
    elements = needs.elements or [1]
    n_atoms = len(positions)
    cluster = Structure(
        numbers=np.array([elements[i % len(elements)] for i in range(n_atoms)]),
        positions=positions.numpy(),
        lattice=BOX * np.eye(3),
        pbc=np.full(3, True),
        group=np.zeros(n_atoms, dtype=np.int64),
        linked=False,
        charge_state=neutral(
            n_atoms
        ),  # for any number of electrons: energies are only compared with each other
        coulomb=COULOMB[0],
        where="the probe",
    )
    lists = fresh(needs, CUTOFF_LR)
    return positions, lambda r: build(moved(cluster, r.numpy()), lists)


def verify(
    model: So3krates, scripted: torch.jit.ScriptModule, path: str | Path, fast: nn.Module | None = None
) -> dict[str, float]:
    """Compare eager, scripted, loaded and frozen evaluation, and forces with finite differences.

    Args:
        model: the eager model.
        scripted: its TorchScript form.
        path: the file that was saved.
        fast: the form with compiled kernels in float32, if the file has this form and kernels are built.

    Returns:
        The largest relative deviation of each check.

    Raises:
        So3kError: a check fails; the message names it.
    """
    dtype = next(model.parameters()).dtype
    loaded = load_torchscript(Path(path), torch.device("cpu"))
    if lacking := missing(loaded):
        raise So3kError(
            f"the exported file lacks {', '.join(lacking)}: this is an error of so3k-md, please report it"
        )
    for spacing in SPACINGS:
        positions, graph = probe(model.needs, spacing)
        eager = evaluate(model, graph(positions), 1)
        if eager.forces.abs().max() < LARGEST_FORCE:  # false for NaN
            break
    if not torch.isfinite(eager.forces).all() or not torch.isfinite(eager.outputs.energies).all():
        raise So3kError(
            "the model gives energies or forces that are not finite: its weights cannot be used, train it "
            "again"
        )
    constant = frozen(copy.deepcopy(loaded))
    checks = {}
    with torch.jit.optimized_execution(False):  # a few calls do not repay the time to optimise
        for name, other in {"scripted": scripted, "loaded": loaded, "frozen": constant}.items():
            checks[name] = _deviation(eager, evaluate(other, graph(positions), 1))
            _require(name, checks[name], TOLERANCES[dtype])
        if fast is not None:
            checks["with kernels"] = _deviation(eager, evaluate(fast, graph(positions), 1))
            _require("with kernels", checks["with kernels"], TOLERANCES[torch.float32])
        checks["finite differences"] = _finite_differences(set_dtype(loaded, torch.float64), positions, graph)
    _require("finite differences", checks["finite differences"], FINITE_DIFFERENCE_TOLERANCE)
    return checks


def _deviation(a: Evaluation, b: Evaluation) -> float:
    pairs = [(u, v) for u, v in zip(tensors_of(a), tensors_of(b), strict=True) if u.numel()]
    return max(float((u - v).abs().max() / (1.0 + u.abs().max())) for u, v in pairs)


def _finite_differences(model: nn.Module, positions: Tensor, graph: Callable[[Tensor], Graph]) -> float:
    """max |F + dE/dr| / (1 + max |F|) over a few atoms; fourth-order formula, the better of two steps."""
    forces = evaluate(model, graph(positions), 1).forces
    worst = 0.0
    for atom in range(0, len(positions), 5):
        for axis in range(3):
            derivatives = [_derivative(model, positions, graph, atom, axis, step) for step in STEPS]
            worst = max(worst, min(abs(derivative + float(forces[atom, axis])) for derivative in derivatives))
    return worst / (1.0 + float(forces.abs().max()))


def _derivative(
    model: nn.Module,
    positions: Tensor,
    graph: Callable[[Tensor], Graph],
    atom: int,
    axis: int,
    step: float,
) -> float:
    energies = []
    for steps in (-2, -1, 1, 2):
        moved = positions.clone()
        moved[atom, axis] += steps * step
        energies.append(float(evaluate(model, graph(moved), 1).energy))
    return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)


def _require(name: str, deviation: float, tolerance: float) -> None:
    if not deviation <= tolerance:
        raise So3kError(
            f"export refused: the check '{name}' deviates by {deviation:.1e}, allowed {tolerance:.0e}; "
            "nothing was written"
        )
