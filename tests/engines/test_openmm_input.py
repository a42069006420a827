"""What OpenMM runs refuse, and which backend they take: always one line that says why."""

import subprocess
import sys

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from openmm_doors import BACKENDS, PLATFORMS, context_of, energy_of
from toys import save_toy, structure, toy_model

from so3k_md.engines.openmm import backend, create_system
from so3k_md.engines.openmm.backend import choose_backend
from so3k_md.engines.openmm.run import readable_errors
from so3k_md.errors import So3kError


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_that_are_not_numbers_stop_in_one_line(backend, platform):
    made = create_system(structure("open"), toy_model(), backend=backend)
    context = context_of(made.system, made.positions_nm, platform)
    broken = made.positions_nm.copy()
    broken[4, 2] = np.nan
    context.setPositions(broken)
    with pytest.raises(So3kError, match="particle 4 is not|a position is NaN") as error, readable_errors():
        context.getState(energy=True)
    assert "\n" not in str(error.value)
    context.setPositions(made.positions_nm)  # and the list has survived it
    assert np.isfinite(energy_of(context))


def test_ctrl_c_inside_a_pythonforce_is_a_keyboard_interrupt(monkeypatch):
    made = create_system(structure("open"), toy_model(), backend="pythonforce")
    context = context_of(made.system, made.positions_nm)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backend.ModelCall, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt), readable_errors():
        context.getState(energy=True)


@pytest.mark.parametrize(
    ("structure_", "arguments", "message"),
    [
        (["C", "N"], {}, "atom 1 is N, the model knows only H, C, O"),
        (["C", "Xx"], {}, "'Xx' is not an element"),
        ([6, 0], {}, "0 is not an element"),
        ([], {}, "0 elements"),
        (["O"], {"model": "absent.pt"}, "no model file absent.pt"),
        (["O"], {"backend": "magic"}, "choose one of auto"),
        (["O"], {"dtype": "float16"}, "float16"),
        (["O"], {"atoms": [1]}, "atoms names atom 1, but the topology has 1 atoms, from 0"),
        (["O", "O"], {"atoms": [1, 1]}, "different numbers"),
        (["O", "O"], {"masses_amu": [16.0]}, "1 masses for 2 atoms"),
        (["O"], {"skin": -1.0}, "skin"),
        (Atoms("O", pbc=(1, 1, 0), cell=[5, 5, 5]), {}, "periodic along all axes or none"),
        (Atoms("O", pbc=True), {}, "cell"),
        (Atoms("O", positions=[[np.nan, 0, 0]]), {}, "finite"),
    ],
)
def test_unusable_input_is_refused_in_one_line(structure_, arguments, message):
    with pytest.raises(So3kError, match=message) as error:
        create_system(structure_, **{"model": toy_model()} | arguments)
    assert "\n" not in str(error.value)


def test_number_of_positions_must_fit():
    made = create_system(["O", "H"], toy_model())
    with pytest.raises(openmm.OpenMMException, match="number of positions"):
        context_of(made.system, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"openmm": "8.6.1"}, r"openmm 8.6.1 ends the process .* openmm==8.5.2"),
        ({"torch": "2.13.0+cpu"}, r"built for torch 2.9, not 2.13.0\+cpu"),
    ],
)
def test_torchforce_is_taken_only_where_it_is_safe(monkeypatch, versions, reason):
    installed = backend.version
    monkeypatch.setattr(backend, "version", lambda name: versions.get(name) or installed(name))
    auto = choose_backend("auto")
    assert auto.name == "pythonforce"
    with pytest.raises(So3kError, match=reason):
        choose_backend("torchforce")
    assert choose_backend("pythonforce").name == "pythonforce"


def test_backend_is_named_with_its_reason(caplog, tmp_path):
    caplog.set_level("INFO", "so3k_md")
    made = create_system(["O"], save_toy(tmp_path / "toy.pt"), dtype="float32", kernels="off")
    assert made.backend == ("torchforce", made.backend.reason)
    assert f"by torchforce: {made.backend.reason}" in caplog.text


def test_plugin_is_loaded_though_openmm_came_before_torch():
    code = (
        "import openmm\n"
        "kernels = ['CalcTorchForce']\n"
        "platform = openmm.Platform.getPlatformByName('Reference')\n"
        "before = platform.supportsKernels(kernels)\n"
        "from so3k_md.engines.openmm.backend import choose_backend\n"
        "print(before, choose_backend().name, platform.supportsKernels(kernels))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["torchforce", "True"]
    assert "deprecated" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernels_are_refused_where_there_is_no_gpu():
    with pytest.raises(So3kError, match="kernels = on is impossible: .*libcuda.so.1 cannot be loaded"):
        create_system(["O"], toy_model(), device="cuda", kernels="on", dtype="float32")
