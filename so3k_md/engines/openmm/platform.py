"""Determines the OpenMM platforms on which a TorchForce works, and the one that OpenMM chooses by default."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import openmm

TORCH_KERNEL = "CalcTorchForce"
DEFAULT = "OPENMM_DEFAULT_PLATFORM"  # OpenMM reads it for each Context without a named platform


class PlatformFact(NamedTuple):
    """Facts about a platform of OpenMM."""

    name: str
    speed: float  # by this OpenMM ranks platforms
    torch: bool  # whether OpenMM offers a TorchForce there
    fault: str | None = None  # why a TorchForce would end the process on it


def platform_facts() -> list[PlatformFact]:
    """The platforms of this process; the Torch plugin must be loaded."""
    facts = []
    for index in range(openmm.Platform.getNumPlatforms()):
        platform = openmm.Platform.getPlatform(index)
        offered, fault = platform.supportsKernels([TORCH_KERNEL]), plugin_fault(platform.getName())
        facts.append(PlatformFact(platform.getName(), platform.getSpeed(), offered, fault))
    return facts


def default_for(facts: Sequence[PlatformFact], torchforce: bool, named: str | None) -> PlatformFact | None:
    """The platform that OpenMM chooses for a System if none is named.

    Args:
        facts: of all platforms.
        torchforce: whether the System holds a TorchForce.
        named: the value of OPENMM_DEFAULT_PLATFORM.

    Returns:
        None if OpenMM itself refuses.
    """
    # if the library has a fault, the order of imports determines whether a TorchForce is offered
    able = [fact for fact in facts if fact.torch or fact.fault or not torchforce]
    offered = [fact for fact in able if named in (None, fact.name)]
    return max(offered, key=lambda fact: fact.speed, default=None)


def best_for(facts: Sequence[PlatformFact], torchforce: bool, named: str | None) -> PlatformFact | None:
    """The named platform if this System works there, otherwise the fastest on which both backends work.

    The model of a PythonForce is computed on the CPU or with CUDA on any platform. OpenCL therefore speeds up
    only the classical part of a System, and OpenCL devices that are CPUs crash in OpenMM's minimiser
    (PoCL 3.1).

    Args:
        facts: of all platforms.
        torchforce: whether the System holds a TorchForce.
        named: the value of OPENMM_DEFAULT_PLATFORM.

    Returns:
        None if OpenMM itself refuses the named platform.
    """
    default = default_for(facts, torchforce, named)
    if default is None or (named and not (torchforce and default.fault)):
        return default
    return default_for([fact for fact in facts if fact.fault is None], torchforce, None)


def torch_library(platform: str) -> Path | None:
    """The library of openmm-torch for a platform; CPU uses that of Reference."""
    folder = Path(openmm.version.openmm_library_path, "plugins")
    return next(iter(sorted(folder.glob(f"*OpenMMTorch{platform}.*"))), None)


def plugin_fault(platform: str) -> str | None:
    """A symbol that the library of openmm-torch for a platform lacks; its first use ends the process."""
    library = torch_library(platform)
    return None if library is None else unresolved(library)


@cache
def unresolved(library: Path) -> str | None:
    """The linker's message about missing symbols of a library, or None if all are found.

    OpenMM loads plugins without resolving all symbols, and the linker does not check a loaded library again.
    Therefore a copy of the library is loaded.
    """
    if not hasattr(os, "RTLD_NOW"):  # Windows resolves all symbols of a library when it loads it
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(library, folder)
        try:
            ctypes.CDLL(copy, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            # any other reason that prevents loading also prevents OpenMM from loading the library
            text = str(error).replace(f"{copy}: ", "").splitlines()[0]
            return text if "symbol" in text.lower() else None
    return None
