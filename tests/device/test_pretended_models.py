"""Models on a device: as on the CPU, and without a read by the host once they know what all graphs share."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from nonlocal_models import CELL, NONLOCAL, group_graph, molecules
from pretend import waits
from small_models import CONFIGS, graph_of, lively
from so3lr_toys import ammonium, so3lr_toy, waters
from toys import structure

from so3k_md import So3krates, load
from so3k_md.checkpoint import eager
from so3k_md.export.torchscript import script
from so3k_md.graph import to_device
from so3k_md.model import set_dtype
from so3k_md.model.forces import as_gradient
from so3k_md.model.known import tell
from so3k_md.needs import needs_of
from so3k_md.structure.build import build, fresh
from so3k_md.structure.charges import GivenChargeState
from so3k_md.structure.structure import checked


def local(name):
    atoms = structure("periodic")
    model = lively(set_dtype(So3krates(CONFIGS[name], [1, 6, 8], seed=3), torch.float64))
    return model, graph_of(atoms.numbers, atoms.positions, needs_of(model).cutoff, atoms.cell.array)


def bundled():
    atoms, model = structure("open"), set_dtype(eager(load("ethanol-rmd17")), torch.float64)
    return model, graph_of(atoms.numbers, atoms.positions, needs_of(model).cutoff)


def nonlocal_(name):
    model = lively(set_dtype(So3krates(NONLOCAL[name], [1, 6, 8], seed=3), torch.float64))
    numbers, positions, group = molecules()
    waves = name == "efa-reciprocal"  # whose only group is the cell
    cell, group = (CELL, np.zeros_like(group)) if waves else (None, group)
    return model, group_graph(numbers, positions, group, needs_of(model).cutoff, cell)


def charged(atoms, coulomb, charge=0.0):
    model = so3lr_toy()
    found = checked(
        needs_of(model),
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        where="the structure",
        charge_state=GivenChargeState(charge=charge),
        coulomb=coulomb,
    )
    return model, build(found, fresh(needs_of(model), 6.0))


CASES = {
    "ethanol-rmd17": bundled,
    **{name: partial(local, name) for name in CONFIGS},
    **{name: partial(nonlocal_, name) for name in NONLOCAL},
    "so3lr-box": lambda: charged(waters(), "kspace"),
    "so3lr-shifted": lambda: charged(waters(), "shifted+self"),
    "so3lr-open": lambda: charged(ammonium(), "kspace", 1.0),
}


def on(device, model, graph):
    """The model on the device, told what it may know of the graph, and the graph there."""
    known = copy.deepcopy(model)
    tell(known, bool(graph.cell.any()), graph.group.tolist())
    known = known.to(device)
    if needs_of(model).nonlocal_kind == "efa":
        known.representation.reach.reserve(graph.cell[0].to(device))
    return known, to_device(graph, device)


@pytest.mark.parametrize("form", ["eager", "scripted"])
@pytest.mark.parametrize("name", CASES)
def test_models_give_what_they_give_on_the_cpu_and_the_host_reads_nothing(name, form, device):
    model, graph = CASES[name]()
    known, there = on(device, model, graph)
    if form == "scripted":
        known = script(known)
    with waits() as found:
        got = known.gradient(there)
    expected = as_gradient(model.gradient(graph))
    for ours, wanted in zip(tensors(as_gradient(got)), tensors(expected), strict=True):
        scale = float(wanted.abs().max()) if wanted.numel() else 1.0
        torch.testing.assert_close(ours.cpu(), wanted, rtol=0, atol=1e-12 * max(scale, 1.0))
    # waves of the lattice sum are made anew at each call
    assert {place for _, place in found if "kspace" not in place} == set()


def tensors(gradient):
    return [*gradient.outputs, *gradient[1:]]
