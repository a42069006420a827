"""torch-sim gets what the ASE calculator says, alone and in batches, and its dynamics conserve energy."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from small_models import CONFIGS, lively
from so3lr_toys import so3lr_toy, water_dimer, waters

from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.model import So3krates, set_dtype

ts = pytest.importorskip("torch_sim", reason="torch-sim-atomistic is not installed")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from so3k_md.engines.torch_sim import So3kModel  # noqa: E402

CPU = torch.device("cpu")


def toy(elements: list[int] | None = None) -> So3krates:
    return lively(set_dtype(So3krates(CONFIGS["euclidean-2024"], elements), torch.float64))


def open_pair() -> list[Atoms]:
    return [water_dimer(), molecule("H2O")]


def cells() -> list[Atoms]:
    return [waters(2), waters(2, True)]


@pytest.mark.parametrize("structures", [open_pair, cells])
@pytest.mark.parametrize("make", [lambda: toy([1, 8]), so3lr_toy])
def test_results_are_those_of_the_calculator(make, structures):
    systems, model = structures(), So3kModel(make(), cutoff_lr=6.0)
    found = model(ts.io.atoms_to_state(systems, CPU, torch.float64))
    forces = found["forces"].split([len(atoms) for atoms in systems])
    for k, atoms in enumerate(systems):
        atoms.calc = So3kCalculator(make(), cutoff_lr=6.0)
        assert found["energy"][k].item() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(forces[k], atoms.get_forces(), atol=1e-10)
        if atoms.pbc.any():
            np.testing.assert_allclose(found["stress"][k], atoms.get_stress(voigt=False), atol=1e-12)
        else:
            assert not found["stress"][k].any()


def test_the_interface_is_that_of_torch_sim():
    validate_model_outputs(So3kModel(toy()), CPU, torch.float64)


def test_dynamics_conserve_energy():
    units, model = ts.units.MetalUnits, So3kModel("ethanol-rmd17", dtype="float64")
    start = ts.io.atoms_to_state([molecule("CH3CH2OH") for _ in range(3)], CPU, torch.float64)
    begin, step = ts.nve(model=model, dt=0.0005 * units.time, kT=300 * units.temperature)

    def total(state):
        energies = {"masses": state.masses, "momenta": state.momenta, "system_idx": state.system_idx}
        return state.energy + ts.calc_kinetic_energy(**energies)

    state = begin(start, seed=3)
    energies = [total(state)]
    for _ in range(40):
        state = step(state)
        energies.append(total(state))
    assert np.ptp(torch.stack(energies).numpy(), axis=0).max() < 0.02
    assert (state.positions - start.positions).abs().max() > 0.01


def test_errors_name_the_system():
    with pytest.raises(So3kError, match="system 1"):
        So3kModel(toy([1, 8]))(ts.io.atoms_to_state([molecule("H2O"), molecule("CO2")], CPU, torch.float64))
