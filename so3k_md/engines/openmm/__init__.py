"""OpenMM: a System, or the atoms of one, described by a model.

Importing this package also makes an XML that holds a model readable.
"""

from so3k_md.engines.openmm.system import ModelSystem, add_model, create_system

__all__ = ["ModelSystem", "add_model", "create_system"]
