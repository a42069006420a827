"""Chooses how OpenMM calls a scripted model: a TorchForce where it works, a PythonForce anywhere."""

import ctypes
import importlib.util
import io
import logging
import os
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from so3k_md.checkpoint import parse_device
from so3k_md.engines.openmm.module import ERROR_TAG
from so3k_md.engines.openmm.platform import (
    DEFAULT,
    TORCH_KERNEL,
    PlatformFact,
    best_for,
    default_for,
    platform_facts,
    unresolved,
)
from so3k_md.errors import So3kError
from so3k_md.kernels.build import load_kernels

BACKENDS = ("auto", "torchforce", "pythonforce")
INTERRUPTED = f"{ERROR_TAG} stopped by Ctrl-C"

log = logging.getLogger(__name__)


class Backend(NamedTuple):
    """How OpenMM calls the model."""

    name: str  # torchforce or pythonforce
    reason: str


def choose_backend(wanted: str = "auto") -> Backend:
    """TorchForce if it works on the platform that OpenMM chooses, otherwise PythonForce; with the reason.

    Raises:
        So3kError: the one asked for does not work here.
    """
    if wanted not in BACKENDS:
        raise So3kError(f"backend {wanted!r} is unknown: choose one of {', '.join(BACKENDS)}")
    if wanted == "pythonforce":
        return Backend("pythonforce", "asked for")
    problem = torchforce_problem()
    if problem is not None and wanted == "torchforce":
        raise So3kError(f"{problem}; or use backend pythonforce")
    if problem is None and wanted == "auto":
        problem = default_problem(platform_facts(), os.environ.get(DEFAULT))
    if problem is not None:
        return Backend("pythonforce", problem)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "openmm", "openmmtorch"))
    return Backend("torchforce", f"{versions} are compatible")


def default_problem(facts: Sequence[PlatformFact], named: str | None) -> str | None:
    """Why a TorchForce ends the process on the platform that OpenMM chooses, and the remedy; None if not.

    Args:
        facts: of `platform_facts`.
        named: the value of OPENMM_DEFAULT_PLATFORM.
    """
    default = default_for(facts, True, named)
    if default is None or default.fault is None:
        return None
    best = best_for(facts, True, named)
    other = f"choose platform {best.name} and backend torchforce, or " if best else ""
    return (
        f"a TorchForce of openmmtorch {version('openmmtorch')} ends the process on platform {default.name} "
        f"({default.fault}), the default platform of OpenMM here; a PythonForce works there; for a "
        f"TorchForce {other}on an NVIDIA GPU install platform CUDA: {cuda_wheels()}"
    )


def cuda_wheels() -> str:
    """The command that installs the platform CUDA."""
    major = (torch.version.cuda or "12").split(".")[0]
    packages = [f"'{name}[cuda{major}]=={version(name)}'" for name in ("openmm", "openmmtorch")]
    return f"pip install {' '.join(packages)}"


def best_platform(backend: str = "auto") -> openmm.Platform:
    """The platform to pass to a Context or Simulation; see `best_for`.

    Args:
        backend: torchforce, pythonforce or auto, or the name of a `Backend`.

    Raises:
        So3kError: the backend does not work here, or OPENMM_DEFAULT_PLATFORM names no platform of OpenMM.
    """
    torchforce = choose_backend(backend).name == "torchforce"
    named = os.environ.get(DEFAULT)
    best = best_for(platform_facts(), torchforce, named)
    if best is None:
        raise So3kError(f"{DEFAULT} = {named} is not a platform of this OpenMM: correct or unset it")
    return openmm.Platform.getPlatformByName(best.name)


def avoid_faulty_platform() -> None:
    """Make OpenMM choose another platform by default if a TorchForce ends the process on its first choice."""
    facts, named = [fact for fact in platform_facts() if fact.torch], os.environ.get(DEFAULT)
    best = best_for(facts, True, named)
    if best is not None and best != default_for(facts, True, named):
        os.environ[DEFAULT] = best.name
        log.warning(
            "%s is set to %s in this process: %s",
            DEFAULT,
            best.name,
            default_problem(facts, named),
        )


def torchforce_problem() -> str | None:
    """Why a TorchForce does not work here, with the remedy; None if it works."""
    try:
        found = version("openmmtorch")
    except PackageNotFoundError:
        return "openmmtorch is not installed: pip install 'so3k-md[openmm]'"
    if release(version("openmm")) >= (8, 6):
        return (
            f"openmm {version('openmm')} ends the process when a TorchForce of openmmtorch {found} is copied "
            "or serialised: pip install openmm==8.5.2"
        )
    if release(version("torch")) != (2, 9):
        return f"openmmtorch {found} is built for torch 2.9, not {version('torch')}: pip install torch==2.9.1"
    try:
        load_torch_plugin()
    except ImportError as error:
        return f"openmmtorch {found} does not load ({error}): pip install 'so3k-md[openmm]'"
    if not openmm.Platform.getPlatformByName("Reference").supportsKernels([TORCH_KERNEL]):
        return f"the Torch plugin of OpenMM does not load: {plugin_failure()}"
    return None


def release(text: str) -> tuple[int, int]:
    """2.9.1+cu128 as (2, 9)."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def load_torch_plugin() -> None:
    """Import openmmtorch and load its kernels, which OpenMM missed if it was imported before torch."""
    preload_nvrtc()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # openmmtorch imports simtk, which warns on the root logger
    try:
        import openmmtorch  # noqa: F401  registers the XML proxy of TorchForce
    finally:
        logging.disable(level)
    if openmm.Platform.getPlatformByName("Reference").supportsKernels([TORCH_KERNEL]):
        return
    for library in sorted(Path(openmm.version.openmm_library_path, "plugins").glob("*OpenMMTorch*")):
        if fault := unresolved(library):  # not loaded, so that OpenMM chooses another platform
            log.debug("%s: %s", library.name, fault)
            continue
        try:
            openmm.Platform.loadPluginLibrary(str(library))
        except openmm.OpenMMException as error:  # plugins of platforms that this machine does not have
            log.debug("%s", error)


def preload_nvrtc() -> None:
    """Load NVRTC 13; openmmtorch for Python 3.13 is linked to it, and the linker does not find it."""
    packages = importlib.util.find_spec("nvidia")
    for root in packages.submodule_search_locations or [] if packages else []:
        for library in Path(root).glob("cu13/lib/libnvrtc.so.13"):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def plugin_failure() -> str:
    """OpenMM's error message about its Torch plugin."""
    failures = [line for line in openmm.Platform.getPluginLoadFailures() if "TorchReference" in line]
    return failures[0] if failures else "no such plugin; reinstall openmmtorch"


def make_force(module: torch.jit.ScriptModule, backend: str, device: str) -> openmm.Force:
    """The Force of a scripted module."""
    if backend == "pythonforce":
        return openmm.PythonForce(ModelCall(module.to(parse_device(device))))
    import openmmtorch

    avoid_faulty_platform()
    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(True)
    return force


def as_torchforce(force: openmm.Force) -> Any:
    """A Force as a TorchForce, or None if it is another Force."""
    try:
        import openmmtorch
    except ImportError:
        return None
    return openmmtorch.TorchForce.cast(force) if openmmtorch.TorchForce.isinstance(force) else None


class ModelCall:
    """The callable of a PythonForce; pickled with its module, so that Systems can be copied and saved as XML.

    Args:
        module: of `script_for_openmm`.
    """

    def __init__(self, module: torch.jit.ScriptModule):
        self.module = module
        self.lock = threading.Lock()  # Contexts share the module and its neighbor list

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Energy, kJ/mol, and forces, kJ/mol/nm, of a State."""
        try:
            return self.evaluate(state)
        except KeyboardInterrupt:  # OpenMM would turn it into an error with an empty message
            raise RuntimeError(INTERRUPTED) from None

    def evaluate(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Energy and forces of the module as numbers."""
        arrays = [state.getPositions(asNumpy=True)]
        if self.module.periodic:
            arrays.append(state.getPeriodicBoxVectors(asNumpy=True))
        with self.lock:
            energy, forces = self.module(*(torch.tensor(a.value_in_unit(unit.nanometer)) for a in arrays))
        return energy.item(), forces.numpy(force=True)

    def __getstate__(self) -> bytes:
        return self.module.save_to_buffer()

    def __setstate__(self, state: bytes) -> None:
        place = None if torch.cuda.is_available() else "cpu"
        try:
            module = torch.jit.load(io.BytesIO(state), map_location=place)
        except RuntimeError as error:
            if "so3k::" not in str(error):
                raise
            raise So3kError(
                "this System calls compiled kernels, which are not built here: build them with so3k-md "
                "kernels build"
            ) from error
        self.__init__(module)  # type: ignore[misc]


def load_libraries() -> None:
    """Load the libraries that a System in XML or a pickle may need, so that this process can read it."""
    try:
        load_kernels()
    except OSError as broken:
        log.warning("the compiled kernels do not load: %s; so3k-md doctor gives the remedy", broken)
    if problem := torchforce_problem():
        log.debug("%s", problem)


load_libraries()
