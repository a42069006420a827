"""So3krates force fields in production: train or import, export once, run in OpenMM and LAMMPS."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from so3k_md.checkpoint import load
    from so3k_md.graph import Graph
    from so3k_md.many import evaluate_atoms
    from so3k_md.model import ModelConfig, So3krates

__all__ = ["Graph", "ModelConfig", "So3krates", "__version__", "evaluate_atoms", "load"]
__version__ = "0.2.0.dev0"

_MODULES = {
    "Graph": "graph",
    "ModelConfig": "model",
    "So3krates": "model",
    "evaluate_atoms": "many",
    "load": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use, so that `so3k-md --help` does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
