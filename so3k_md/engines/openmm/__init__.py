"""OpenMM: a model as the force field of a System, or of some of its atoms.

Importing this package also lets OpenMM read an XML file that contains a model.
"""

from so3k_md.engines.openmm.system import ModelSystem, add_model, create_system

__all__ = ["ModelSystem", "add_model", "create_system"]
