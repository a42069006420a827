"""What the ASE calculator is given: charges by keyword, cells, close atoms, words that it does not know."""

import copy
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from so3lr_toys import ammonium, ions, so3lr_toy, water_dimer
from toys import structure, toy_model

from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.contacts import MOST, CloseWatch

MODELS = {"local": toy_model, "long range": so3lr_toy}


def calculator(**options) -> So3kCalculator:
    return So3kCalculator(copy.deepcopy(so3lr_toy()), **options)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(So3kError) as refused:
        call(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def squeezed(distance: float) -> Atoms:
    """Ethanol of which the first two atoms are at this distance, Å."""
    atoms = molecule("CH3CH2OH")
    atoms.positions[0] = atoms.positions[1] + [0, 0, distance]
    return atoms


def boxed(*lengths: float) -> Atoms:
    atoms = molecule("H2O")
    atoms.set_cell(lengths)
    atoms.pbc = True
    return atoms


def test_a_charge_by_keyword_is_that_of_the_structure():
    said, silent = ammonium(), ammonium()
    silent.info = {}
    expected = calculator().get_potential_energy(said)
    by_keyword = calculator(charge=1)
    assert by_keyword.get_potential_energy(silent) == by_keyword.get_potential_energy(said) == expected
    assert by_keyword.results["charges"].sum() == pytest.approx(1)
    said.info["charge"] = -1
    assert "its charge is -1, the option charge is 1" in refusal(by_keyword.get_potential_energy, said)
    given = by_keyword.todict()
    assert given == {"charge": 1}


def test_fragments_by_keyword_are_those_of_the_structure():
    said, silent = ions(), ions()
    silent.info, fragment = {}, silent.arrays.pop("fragment")
    options = {"fragments": fragment, "fragment_charges": said.info["fragment_charges"]}
    assert calculator(**options).get_potential_energy(silent) == calculator().get_potential_energy(said)


def test_a_charge_may_be_set_later_and_nothing_else():
    atoms, changing = ammonium(), calculator(charge=1)
    atoms.info = {}
    first = changing.get_potential_energy(atoms)
    assert changing.set(charge=-1) == {"charge": -1}
    second = changing.get_potential_energy(atoms)
    assert abs(second - first) > 1e-3
    assert second == calculator(charge=-1).get_potential_energy(atoms)
    assert "skin cannot be set" in refusal(changing.set, skin=1.0)


def test_unknown_options_are_refused_and_those_of_ase_are_not(tmp_path):
    assert "did you mean coulomb?" in refusal(So3kCalculator, toy_model(), coulombs="shifted")
    assert "did you mean charge?" in refusal(So3kCalculator, toy_model(), charg=1)
    assert "choose one of model, device" in refusal(So3kCalculator, toy_model(), xyz="goes")
    atoms = structure("open")
    So3kCalculator(toy_model(), label="run", directory=str(tmp_path), atoms=atoms)
    assert np.isfinite(atoms.get_potential_energy())


def test_a_local_model_knows_no_charges():
    assert "the model does not use them" in refusal(So3kCalculator, toy_model(), charge=1)
    local, charged = So3kCalculator(toy_model()), structure("open")
    assert "the model does not use them" in refusal(local.set, spin=1)
    expected = So3kCalculator(toy_model(), charge=0).get_potential_energy(charged)
    charged.info["charge"] = 1
    with pytest.warns(So3kWarning, match="does not use charge and spin"):
        assert local.get_potential_energy(charged) == expected
    charged.positions += 1.0
    local.get_potential_energy(charged)  # warns no more, or it would be an error here


def test_initial_charges_are_not_the_charge():
    atoms = molecule("H2O")
    atoms.set_initial_charges([-0.8, 0.4, 0.4])
    calculator().get_potential_energy(atoms)
    atoms.set_initial_charges([0, 1, 1])
    calculator(charge=0).get_potential_energy(atoms)
    with pytest.warns(So3kWarning, match=r"initial charges .* add up to \+2 e and are not used"):
        calculator().get_potential_energy(atoms)


@pytest.mark.parametrize("model", MODELS)
def test_atoms_on_one_spot_are_refused(model):
    for _ in range(2):  # the second time the list is there
        message = refusal(So3kCalculator(MODELS[model]()).get_forces, squeezed(0.0))
        assert "atoms 0 and 1 have the same position" in message
    atoms = squeezed(1.5)
    atoms.calc = So3kCalculator(MODELS[model]())
    atoms.get_forces()
    atoms.positions[0] = atoms.positions[1]
    assert "the same position" in refusal(atoms.get_forces)


@pytest.mark.parametrize("model", MODELS)
def test_close_atoms_are_warned_of_in_every_structure(model):
    one = So3kCalculator(MODELS[model]())
    one.get_forces(squeezed(1.5))
    for distance in (0.6, 0.3):
        with pytest.warns(So3kWarning, match=rf"atoms 0 and 1 are {distance:.2f} Å apart, 0"):
            one.get_forces(squeezed(distance))
    with pytest.warns(So3kWarning, match=r"0\.30 Å apart"):
        one.get_forces(squeezed(0.3)[:7])


def test_a_contact_through_the_wall_is_called_so():
    for positions, wall in (
        ([[0, 0, 0.2], [0, 0, 0.7]], ""),
        ([[0, 0, 0.2], [0, 0, 7.7]], " across the boundary"),
    ):
        atoms = Atoms("OO", positions, cell=[8, 8, 8], pbc=True)
        with pytest.warns(So3kWarning, match=rf"0\.50 Å apart{wall}(,| of the cell,) 0\.38"):
            So3kCalculator(toy_model()).get_forces(atoms)


def test_a_simulation_is_not_flooded_by_warnings():
    watch, numbers = CloseWatch(), np.array([6, 6])
    first, second = np.array([0, 1]), np.array([1, 0])

    def look(distance: float, numbers=numbers) -> int:
        positions = np.array([[0, 0, 0], [0, 0, distance]])
        vectors = positions[second] - positions[first]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.look(numbers, positions, vectors, first, second)
        return len(caught)

    assert [look(d) for d in (1.5, 0.5, 0.45, 0.5, 0.3, 1.5, 0.5)] == [0, 1, 0, 0, 1, 0, 1]
    assert sum(look(d) for d in [1.5, 0.5] * 50) == MOST - 3
    assert look(0.5, np.array([6, 7])) == 1


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (boxed(1, 1, 1), "the cube of 1 Å"),
        (boxed(9, 9, 0.5), "repeats after 0.50 Å"),
        (boxed(1.4, 1.4, 1.4), "less than in any known material"),
        (boxed(9, 9, 0), "repeats after 0.00 Å"),
    ],
)
def test_cells_that_cannot_be_are_refused(atoms, says):
    message = refusal(So3kCalculator(toy_model()).get_forces, atoms)
    assert says in message
    assert "atoms.pbc = False" in message
    atoms.pbc = False
    assert np.isfinite(So3kCalculator(toy_model()).get_forces(atoms)).all()


def test_a_cell_is_looked_at_when_it_changes():
    atoms = boxed(9, 9, 9)
    atoms.calc = So3kCalculator(toy_model())
    atoms.get_forces()
    atoms.set_cell([9, 9, 0.5])
    assert "repeats after 0.50 Å" in refusal(atoms.get_forces)


def test_what_is_not_finite_is_not_returned():
    model = copy.deepcopy(toy_model())
    model.energies.head.scale[8] = np.inf
    message = refusal(So3kCalculator(model).get_forces, structure("open"))
    assert "the energy of atom 2 is not a finite number" in message
    assert "; the closest atoms, " in message


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms("XO", [[0, 0, 0], [0, 0, 1.0]]), "atom 0 is X"),
        (Atoms(numbers=[8, 200], positions=[[0, 0, 0], [0, 0, 1.0]]), "atom 1 is 200"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1e9]]), "coordinates must be finite and below"),
    ],
)
def test_strange_atoms_are_refused(atoms, says):
    assert says in refusal(So3kCalculator(toy_model()).get_forces, atoms)


def test_constraints_copies_and_unknown_properties():
    atoms = water_dimer()
    atoms.calc = calculator()
    free = atoms.get_forces()
    atoms.set_constraint(FixAtoms([0]))
    assert not atoms.get_forces()[0].any()
    assert (atoms.get_forces(apply_constraint=False) == free).all()
    copied = copy.deepcopy(atoms)
    copied.positions[1] += 0.01
    assert (atoms.get_forces(apply_constraint=False) == free).all()
    assert (copied.get_forces(apply_constraint=False) != free).any()
    for name in ("magmoms", "nonsense"):
        with pytest.raises(PropertyNotImplementedError):
            atoms.calc.get_property(name, atoms)


def test_energies_of_other_compositions_are_arbitrary_and_it_is_said():
    calculator = So3kCalculator("ethanol-rmd17", kernels="off")
    with pytest.warns(
        So3kWarning, match="the energy of CH4 contains an arbitrary constant: .+ fitted to C2H6O"
    ):
        calculator.get_potential_energy(molecule("CH4"))
    two = molecule("CH3CH2OH") + molecule("CH3CH2OH")
    two.positions[9:] += [8.0, 0.0, 0.0]
    calculator.get_potential_energy(two)


@pytest.mark.parametrize("skin", [-1.0, 1e6, float("nan")])
def test_a_skin_that_cannot_be_is_refused(skin):
    with pytest.raises(So3kError, match=r"skin = .+ is impossible: give a length from 0 to 20 Å"):
        So3kCalculator("ethanol-rmd17", skin=skin)
