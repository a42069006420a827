"""A structure is checked once, and everybody who brings one gets the same graph of it."""

import numpy as np
import pytest
import torch
from ase import Atoms

from so3k_md.data.batches import to_graph
from so3k_md.data.frames import Record, to_frame
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB, CUTOFF_LR, Graph
from so3k_md.model import So3krates
from so3k_md.model_config import ModelConfig
from so3k_md.needs import needs_of_cutoff
from so3k_md.structure.build import build, fresh, kept
from so3k_md.structure.charges import GivenChargeState
from so3k_md.structure.structure import checked, moved

CELL = np.array([[9.0, 0.0, 0.0], [1.5, 8.5, 0.0], [-1.0, 0.7, 8.0]])
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
NUMBERS = np.array([8, 1, 1, 8, 1, 1])
GROUP = np.array([7, 7, 7, 2, 2, 2])
TORN = np.array([[0, 0, 0], [1, 0, -2], [0, 0, 0], [0, 0, 0], [0, -1, 0], [3, 0, 0]])
POSITIONS = np.concatenate([WATER + 0.1, WATER + [3.0, 3.2, 2.9]]) + TORN @ CELL
ANY = needs_of_cutoff(3.0)


def atoms() -> Atoms:
    made = Atoms(NUMBERS, POSITIONS, cell=CELL, pbc=True)
    made.arrays["group"] = GROUP
    return made


def pairs_in_order(graph: Graph) -> Graph:
    """The same with its pairs sorted, which each list gives in an order of its own."""
    keys = torch.cat([graph.idx_i[:, None], graph.idx_j[:, None], graph.vectors.round(decimals=6)], 1)
    order = torch.from_numpy(np.lexsort(keys.numpy().T[::-1]))
    fields = graph.vectors[order], graph.idx_i[order], graph.idx_j[order]
    return graph._replace(vectors=fields[0], idx_i=fields[1], idx_j=fields[2])


@pytest.mark.parametrize("kind", ["none", "sphc"])
def test_data_and_ase_make_the_same_graph(kind):
    model = So3krates(ModelConfig(nonlocal_=kind, features=12, cutoff=5.0))
    record = Record(NUMBERS, POSITIONS, CELL, np.ones(3, bool), {}, GROUP)
    of_data = to_graph(to_frame(record, 0, "made"), 5.0, model)
    of_ase = So3kCalculator(model).graph(atoms())
    assert len(of_data.idx_i) > 12
    for one, other in zip(pairs_in_order(of_data)[:-1], pairs_in_order(of_ase)[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    tensors = len(of_data.long) - 2
    for one, other in zip(of_data.long[:tensors], of_ase.long[:tensors], strict=True):
        assert torch.equal(one, other)
    assert of_data.long[tensors:] == of_ase.long[tensors:] == (COULOMB[0], CUTOFF_LR)
    whole = of_data.positions[1:3] - of_data.positions[:1]
    assert (bool(whole.abs().max() < 2.0)) == (kind == "sphc")


def test_kept_lists_follow_a_structure_that_moves():
    needs = needs_of_cutoff(4.5)._replace(nonlocal_kind="sphc", has_long_range=True)
    where = {"where": "the box", "group": GROUP}
    structure = checked(needs, NUMBERS, POSITIONS, CELL, True, **where)
    lists, rng = kept(needs, 6.0, 0.5), np.random.default_rng(0)
    for _ in range(12):
        structure = moved(structure, structure.positions + 0.05 * rng.normal(size=(6, 3)))
        anew = checked(needs, NUMBERS, structure.positions, CELL, True, **where)
        ours, other = (build(*made) for made in ((structure, lists), (anew, fresh(needs, 6.0))))
        for one, two in zip(pairs_in_order(ours)[:-1], pairs_in_order(other)[:-1], strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
        within = (
            torch.linalg.vector_norm(ours.long.vectors, dim=1) <= 6.0
        )  # to which long-range lists are not trimmed
        assert int(within.sum()) == len(other.long.vectors)
    assert lists.near.builds < 12


def test_a_structure_keeps_its_own_arrays():
    brought = POSITIONS.copy()
    structure = checked(ANY, NUMBERS, brought, CELL, True, where="it")
    brought += 1.0
    assert (structure.positions == POSITIONS).all()
    again = moved(structure, brought)
    brought += 1.0
    assert (again.positions == POSITIONS + 1.0).all()
    assert (structure.positions == POSITIONS).all()


CHARGED = needs_of_cutoff(3.0)._replace(has_charge_state=True, has_long_range=True, singlets_only=True)


@pytest.mark.parametrize(
    ("needs", "changes", "says"),
    [
        (ANY, {"numbers": []}, "the box has no atoms"),
        (ANY, {"numbers": [8, 1]}, r"the box: positions have shape \(6, 3\): give \(2, 3\)"),
        (
            needs_of_cutoff(3.0)._replace(elements=[1, 6]),
            {},
            "the box: atom 0 is O, the model knows only H, C",
        ),
        (ANY, {"positions": np.full((6, 3), np.nan)}, "the box: atom 0 is at .*must be finite"),
        (ANY, {"positions": np.full((6, 3), 1e8)}, "the box: atom 0 is at .*below"),
        (ANY, {"cell": np.full((3, 3), np.inf)}, "the box: the cell .* is not finite"),
        (ANY, {"cell": np.ones((3, 3))}, "the box: the cell .* has no extent"),
        (ANY, {"cell": None}, "the box: the cell .* has no extent"),
        (ANY, {"cell": CELL / 8, "remedy": "give another"}, "the cell of the box has 0.2 .*: give another"),
        (
            needs_of_cutoff(3.0)._replace(nonlocal_kind="sphc"),
            {},
            "the box: is periodic and does not define the groups",
        ),
        (
            needs_of_cutoff(3.0)._replace(nonlocal_kind="sphc"),
            {"group": GROUP, "max_group": 2},
            "the box: group 2 has 3 atoms, more than max_group = 2",
        ),
        (
            needs_of_cutoff(3.0)._replace(nonlocal_kind="efa"),
            {"pbc": [True, True, False]},
            "the box: has an open axis",
        ),
        (
            CHARGED,
            {"charge_state": GivenChargeState(charge=1)},
            "the box: 19 electrons cannot have 0 unpaired",
        ),
        (CHARGED, {"pbc": [1, 1, 0], "coulomb": "kspace"}, "the box: is periodic along some axes only"),
    ],
)
def test_what_cannot_be_is_refused_with_where_it_comes_from(needs, changes, says):
    brought = {"numbers": NUMBERS, "positions": POSITIONS, "cell": CELL, "pbc": True} | changes
    with pytest.raises(So3kError, match=f"^{says}") as refused:
        checked(needs, **brought, where="the box")
    assert "\n" not in str(refused.value)
