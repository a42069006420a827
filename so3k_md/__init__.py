"""So3krates force fields in production: train or import, export once, run in OpenMM and LAMMPS."""

from so3k_md.checkpoint import load
from so3k_md.graph import Graph
from so3k_md.model import ModelConfig, So3krates

__all__ = ["Graph", "ModelConfig", "So3krates", "__version__", "load"]
__version__ = "0.1.0"
