"""Groups of non-local attention in OpenMM: from bonds, named, one for all; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from openmm import unit
from openmm_doors import BACKENDS, PLATFORMS, as_openmm_sees, context_of, energy_of
from toys import NONLOCAL_KINDS, ethanols, loud, mixture, nonlocal_toy, pytorch, toy_model

from so3k_md import So3krates
from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.groups import bonds_among, molecules_of
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.run import readable_errors, run_script
from so3k_md.engines.openmm.topology import topology_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.bonds import trees
from so3k_md.units import EV_IN_KJ_MOL


def without_bonds(atoms):
    """A topology of elements and the box alone."""
    topology = topology_of(atoms.get_chemical_symbols())
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors(atoms.cell.array / 10 * unit.nanometer)
    return topology


def energy_ev(made, positions_nm):
    return energy_of(context_of(made.system, positions_nm)) / EV_IN_KJ_MOL


def test_trees_follow_bonds():
    topology = topology_of(mixture("open")[0])
    rows = [22, 18, 17, 23, 14, 15, 16, 19, 20, 21, 25]  # ethanol in disorder, and parts of two waters
    bonds = bonds_among(topology, rows)
    parent, tree = trees(len(rows), bonds)
    assert tree.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    linked = {tuple(sorted(pair)) for pair in bonds.tolist()}
    links = {tuple(sorted(pair)) for pair in enumerate(parent.tolist()) if len(set(pair)) == 2}
    assert links <= linked
    assert len(links) == len(rows) - 2


def test_ways_to_say_the_same_groups():
    atoms, group = mixture("periodic")
    named, positions_nm = atoms.copy(), atoms.positions / 10
    named.arrays["group"] = 7 - 2 * group
    rows = np.random.default_rng(1).permutation(len(atoms)).tolist()
    bare = without_bonds(atoms)
    expected = pytorch(atoms, nonlocal_toy("efa"), group).energy.item()
    for structure, options in (
        (topology_of(atoms), {}),
        (topology_of(atoms), {"groups": group.tolist()}),
        (named, {"atoms": rows}),
        (bare, {"groups": group, "positions_nm": positions_nm}),
    ):
        made = create_system(structure, nonlocal_toy("efa"), **options)
        assert energy_ev(made, positions_nm) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", NONLOCAL_KINDS)
def test_groups_that_bonds_do_not_connect_are_linked_by_positions(kind):
    atoms, group = mixture("triclinic")
    atoms.set_cell(2 * atoms.cell)
    pairs = np.minimum(group, 2)  # the two waters are one group
    made = create_system(atoms, nonlocal_toy(kind), groups=pairs)
    expected = pytorch(as_openmm_sees(atoms, made), nonlocal_toy(kind), pairs).energy.item()
    scattered = made.positions_nm.copy()
    box = np.array(made.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    scattered += np.random.default_rng(0).integers(-2, 3, scattered.shape) @ box
    for positions_nm in (made.positions_nm, scattered):
        assert energy_ev(made, positions_nm) == pytest.approx(expected, rel=1e-12)


def test_one_group_for_all_is_warned_of_and_takes_the_images_as_they_come():
    atoms, group = mixture("periodic")
    with pytest.warns(So3kWarning, match="neither extensive nor separable"):
        made = create_system(topology_of(atoms), nonlocal_toy("efa"), groups="all")
    energies = [pytorch(atoms, nonlocal_toy("efa"), group).energy.item()]
    for image in (0, 1):
        atoms.positions[group == 3] += image * atoms.cell[1]
        energies.append(pytorch(atoms, nonlocal_toy("efa")).energy.item())
        assert energy_ev(made, atoms.positions / 10) == pytest.approx(energies[-1], rel=1e-12)
    assert np.diff(np.sort(energies)).min() > 1e-3


def test_open_structure_without_bonds_is_one_group():
    atoms, _ = mixture("open")
    made = create_system(atoms.get_chemical_symbols(), nonlocal_toy("sphc"))
    expected = pytorch(atoms, nonlocal_toy("sphc"), np.zeros(len(atoms), dtype=int)).energy.item()
    assert energy_ev(made, atoms.positions / 10) == pytest.approx(expected, rel=1e-12)
    assert molecules_of(np.zeros((0, 2), dtype=int), 1, periodic=True).tolist() == [0]


def test_local_models_know_no_groups():
    atoms = ethanols(2)
    module = script_for_openmm(toy_model(), atoms.numbers.tolist(), periodic=True)
    assert not module.seen.make_whole
    made = create_system(without_bonds(atoms), toy_model(), groups="auto", keep_molecules=False)
    assert energy_ev(made, atoms.positions / 10) == pytest.approx(pytorch(atoms).energy.item(), rel=1e-12)


def test_report_of_a_run_names_kind_and_groups(capsys):
    atoms, _ = mixture("periodic")
    run_script(lambda: create_system(atoms, nonlocal_toy("efa")))
    assert "\nnon-local attention: efa, 4 groups, the largest of 14 atoms\n" in capsys.readouterr().out
    run_script(lambda: create_system(atoms, toy_model()))
    assert "non-local" not in capsys.readouterr().out


BOX, GROUP = mixture("periodic")


@pytest.mark.parametrize(
    ("structure", "kind", "arguments", "message"),
    [
        (without_bonds(BOX), "sphc", {}, "the topology has no bonds"),
        (without_bonds(BOX), "efa", {"groups": GROUP}, r"do not connect the group of atom 0 \(14 atoms\)"),
        (topology_of(BOX), "sphc", {"groups": np.minimum(GROUP, 2)}, r"the group of atom 23 \(6 atoms\)"),
        (BOX, "sphc", {"groups": "molecules"}, "choose auto or all"),
        (BOX, "sphc", {"groups": [0, 1]}, r"groups: group has shape \(2,\), expected \(29,\)"),
        (BOX, "efa", {"groups": GROUP + 0.5}, "whole number"),
        (BOX, "sphc", {"max_group": 13}, "group 0 has 14 atoms, more than max_group = 13"),
        (BOX, "sphc", {"groups": GROUP, "atoms": [99]}, "atoms names atom 99"),
        (mixture("open")[0], "reciprocal", {}, "the system: has an open axis"),
    ],
)
def test_unusable_groups_are_refused_in_one_line(structure, kind, arguments, message):
    with pytest.raises(So3kError, match=message) as error:
        create_system(structure, nonlocal_toy(kind), **arguments)
    assert "\n" not in str(error.value)


def test_only_sphc_minds_large_groups():
    create_system(BOX, nonlocal_toy("efa"), max_group=13)


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (None, "give `parent`"),
        ([0, 0, 1, 4], "one tree"),
        ([0, 0, 1, -1], "one tree"),
        ([0, 0, 1], "one tree"),
        ([0.0, 0.0, 1.0, 3.0], "one tree"),
        ([1, 0, 0, 3], "one tree"),  # a circle
        ([0, 0, 2, 3], "one tree"),  # two trees in a group
        ([0, 0, 1, 0], "one tree"),  # a link between groups
    ],
)
def test_links_must_be_trees(parent, message):
    with pytest.raises(So3kError, match=message):
        script_for_openmm(
            nonlocal_toy("sphc"), [8, 1, 1, 8], periodic=True, group=[0, 0, 0, 5], parent=parent
        )


@pytest.mark.parametrize(("backend", "platform"), [*zip(BACKENDS, PLATFORMS, strict=True)])
def test_broken_molecules_stop_in_one_line(backend, platform):
    made = create_system(BOX, nonlocal_toy("efa"), backend=backend)
    context = context_of(made.system, made.positions_nm, platform)
    torn = made.positions_nm.copy()
    torn[14:16] += [0.0, 0.0, 0.35]
    context.setPositions(torn)
    message = r"particles \d+ and \d+, linked in one group .* are \d+ pm apart, and the limit .* is 297 pm"
    with pytest.raises(So3kError, match=message) as error, readable_errors():
        context.getState(energy=True)
    assert "\n" not in str(error.value)
    context.setPositions(made.positions_nm)
    assert np.isfinite(energy_of(context))


def test_molecules_that_go_on_through_the_walls_stop_in_one_line():
    atoms = Atoms("C6", [[1.4 * k, 0.3 * (k % 2), 0.0] for k in range(6)], pbc=True, cell=[8.4, 9.0, 9.0])
    topology = topology_of(atoms)
    carbons = list(topology.atoms())
    for k in range(6):
        topology.addBond(carbons[k - 1], carbons[k])
    made = create_system(topology, nonlocal_toy("sphc"))
    with pytest.raises(So3kError, match="the group is bonded to its own image"), readable_errors():
        energy_ev(made, atoms.positions / 10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_beyond_the_reach_of_the_waves_stop_in_one_line(backend):
    model = loud(So3krates(replace(nonlocal_toy("efa").config, efa_reach=4.5), elements=[1, 6, 8]))
    made = create_system(BOX, model, backend=backend)
    context = context_of(made.system, made.positions_nm)
    with pytest.raises(So3kError, match=r"pm wide, more than efa_reach = 4\.5 A") as error, readable_errors():
        context.getState(forces=True)
    assert "\n" not in str(error.value)
