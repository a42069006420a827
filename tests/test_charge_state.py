"""Charge, spin and fragments of a structure: what can be is taken, what cannot be is refused in one line."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from so3k_md.errors import So3kError
from so3k_md.structure.charges import (
    GivenChargeState,
    Spin,
    combined,
    refuse_unknown,
    resolve_charge_state,
    says_something,
)

WATER, TWO = [8, 1, 1], [8, 1, 1, 11]
PIECES = [0, 0, 0, 1]
SINGLETS = SimpleNamespace(has_charge_state=True, singlets_only=True)
ANY_SPIN = SimpleNamespace(has_charge_state=True, singlets_only=False)
LOCAL = SimpleNamespace(has_charge_state=False, singlets_only=False)


def refusal(call, *arguments) -> str:
    with pytest.raises(So3kError) as refused:
        call(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("numbers", "given", "charge"),
    [
        (WATER, GivenChargeState(), 0),
        (WATER, GivenChargeState(charge=2), 2),
        (WATER, GivenChargeState(charge=np.array([-2])), -2),
        (WATER, GivenChargeState(charge="2"), 2),
        ([1], GivenChargeState(charge=1), 1),  # a proton has no electrons
        ([1], GivenChargeState(charge=-1), -1),
        ([16, 8, 8, 8, 8], GivenChargeState(charge=np.int64(-2)), -2),
        (TWO, GivenChargeState(fragment=PIECES, fragment_charges=[0, 1]), 1),
    ],
)
def test_what_can_be_is_taken(numbers, given, charge):
    assert resolve_charge_state(SINGLETS, numbers, given, "it").charge == charge


@pytest.mark.parametrize(
    ("numbers", "given", "says"),
    [
        (
            WATER,
            GivenChargeState(charge=-100),
            r"it: a charge of -100 e would leave 110 electrons to nuclei of \+10 e",
        ),
        (WATER, GivenChargeState(charge=12), "would leave -2 electrons"),
        (WATER, GivenChargeState(charge=1), "9 electrons cannot have 0 unpaired"),
        (WATER, GivenChargeState(charge=[1, 2]), "is not a number"),
        (WATER, GivenChargeState(spin=1), "singlets only"),
        (
            TWO,
            GivenChargeState(charge=1, fragment=PIECES, fragment_charges=[1, 0]),
            "fragment of atom 0: 9 electrons",
        ),
        (
            TWO,
            GivenChargeState(charge=1, fragment=PIECES, fragment_charges=[-12, 13]),
            "fragment of atom 0: a charge",
        ),
    ],
)
def test_what_cannot_be_is_refused(numbers, given, says):
    assert re.search(says, refusal(resolve_charge_state, SINGLETS, numbers, given, "it"))


def test_radicals_are_for_models_that_know_spin():
    one = resolve_charge_state(ANY_SPIN, WATER, GivenChargeState(charge=1, spin=0.5), "it")
    assert (one.charge, one.unpaired) == (1, 1)
    two = GivenChargeState(charge=0, fragment=PIECES, fragment_charges=[1, -1], spin=0.5)
    assert resolve_charge_state(ANY_SPIN, TWO, two, "it").unpaired == 1
    assert "2 electrons cannot have 4" in refusal(
        resolve_charge_state, ANY_SPIN, [1, 1], GivenChargeState(spin=2), "it"
    )


def test_options_fill_in_what_a_structure_does_not_say():
    options = GivenChargeState(charge=-2, fragment=[0, 1], fragment_charges={"0": -1, "1": -1})
    assert combined(options, GivenChargeState(spin=0), "it") == options._replace(spin=0)
    assert combined(options, GivenChargeState(charge=-2.0, fragment=np.array([0, 1])), "it").charge == -2.0
    assert combined(options, GivenChargeState(fragment_charges={0: -1, 1: -1}), "it").charge == -2
    for own in (
        GivenChargeState(charge=-1),
        GivenChargeState(fragment=[1, 0]),
        GivenChargeState(fragment_charges=[-1, -1]),
    ):
        assert "correct one, or leave one out" in refusal(combined, options, own, "it")


def test_a_charge_is_refused_where_nothing_is_known_of_it():
    for given in (GivenChargeState(charge=1), GivenChargeState(spin=0.5), GivenChargeState(fragment=[0, 1])):
        assert "the model does not use them" in refusal(refuse_unknown, LOCAL, given, "it")
    refuse_unknown(LOCAL, GivenChargeState(charge=0, spin=0), "it")
    refuse_unknown(SINGLETS, GivenChargeState(charge=1), "it")


def test_a_spin_of_a_file_and_one_of_the_engine_are_compared_by_what_they_mean():
    singlet = GivenChargeState(spin=Spin(1, "multiplicity"))
    assert not says_something(singlet)
    assert not says_something(GivenChargeState(spin=Spin(0)))
    assert says_something(GivenChargeState(spin=Spin(3, "multiplicity")))
    assert combined(GivenChargeState(spin=0), singlet, "here").spin == singlet.spin
    with pytest.raises(So3kError, match="spin"):
        combined(GivenChargeState(spin=1), singlet, "here")
