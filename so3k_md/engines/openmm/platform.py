"""Which of OpenMM's platforms runs a TorchForce, and which one OpenMM takes where none is named."""

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
DEFAULT = "OPENMM_DEFAULT_PLATFORM"  # which OpenMM reads at each Context without a named platform


class PlatformFact(NamedTuple):
    """What is known of a platform."""

    name: str
    speed: float  # by which OpenMM ranks platforms
    torch: bool  # whether OpenMM offers a TorchForce there
    fault: str | None = None  # why a TorchForce would end the process there


def platform_facts() -> list[PlatformFact]:
    """The platforms of this process, once the Torch plugin is loaded."""
    facts = []
    for index in range(openmm.Platform.getNumPlatforms()):
        platform = openmm.Platform.getPlatform(index)
        offered, fault = platform.supportsKernels([TORCH_KERNEL]), plugin_fault(platform.getName())
        facts.append(PlatformFact(platform.getName(), platform.getSpeed(), offered, fault))
    return facts


def default_for(facts: Sequence[PlatformFact], torchforce: bool, named: str | None) -> PlatformFact | None:
    """The platform that OpenMM takes for a System where none is named.

    Args:
        facts: of all platforms.
        torchforce: whether the System holds a TorchForce.
        named: the value of OPENMM_DEFAULT_PLATFORM.

    Returns:
        None where OpenMM refuses by itself.
    """
    # where the library has a fault, the order of imports decides whether a TorchForce is offered
    able = [fact for fact in facts if fact.torch or fact.fault or not torchforce]
    offered = [fact for fact in able if named in (None, fact.name)]
    return max(offered, key=lambda fact: fact.speed, default=None)


def best_for(facts: Sequence[PlatformFact], torchforce: bool, named: str | None) -> PlatformFact | None:
    """The fastest platform on which both backends work; the one that is named, where this System works there.

    The model of a PythonForce is computed on the CPU or by CUDA whatever the platform, so that OpenCL speeds
    up the classical rest of a System only, and OpenCL devices that are CPUs crash in OpenMM's minimiser
    (PoCL 3.1).

    Args:
        facts: of all platforms.
        torchforce: whether the System holds a TorchForce.
        named: the value of OPENMM_DEFAULT_PLATFORM.

    Returns:
        None where OpenMM refuses the named one by itself.
    """
    default = default_for(facts, torchforce, named)
    if default is None or (named and not (torchforce and default.fault)):
        return default
    return default_for([fact for fact in facts if fact.fault is None], torchforce, None)


def torch_library(platform: str) -> Path | None:
    """The library of openmm-torch for a platform; CPU has none of its own, it takes that of Reference."""
    folder = Path(openmm.version.openmm_library_path, "plugins")
    return next(iter(sorted(folder.glob(f"*OpenMMTorch{platform}.*"))), None)


def plugin_fault(platform: str) -> str | None:
    """A symbol that openmm-torch lacks for a platform, which ends the process at its first use."""
    library = torch_library(platform)
    return None if library is None else unresolved(library)


@cache
def unresolved(library: Path) -> str | None:
    """What the linker says of a library of which not all symbols are found, None where all are.

    OpenMM loads plugins without looking for the symbols, and a library that is loaded already is not looked
    through again; hence a copy is.
    """
    if not hasattr(os, "RTLD_NOW"):  # Windows finds all symbols of a library when it loads it
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(library, folder)
        try:
            ctypes.CDLL(copy, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            # whatever else keeps it from being loaded keeps OpenMM from it too
            text = str(error).replace(f"{copy}: ", "").splitlines()[0]
            return text if "symbol" in text.lower() else None
    return None
