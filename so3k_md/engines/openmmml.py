"""The entry point of openmm-ml: `MLPotential("so3k", model=…)`, alone or mixed with a classical force field.

openmm-ml imports this file when it is imported itself, so that heavy imports are not allowed at the top.
"""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openmm
    from openmm import app

OF_EMBEDDINGS = ("linkAtomDistances",)  # openmm-ml passes these on to potentials


class So3kPotentialFactory:
    """Makes the potential named `so3k`."""

    def createImpl(self, name: str, model: str | None = None, **options: Any) -> "So3kPotential":
        """The potential of a model.

        Args:
            name: `so3k`.
            model: a checkpoint, an exported file, or the name of a bundled model.
            **options: of `so3k_md.engines.openmm.add_model`.

        Raises:
            So3kError: no model is given.
        """
        if model is None:
            from so3k_md.errors import So3kError

            raise So3kError(f'MLPotential("{name}") needs a model: MLPotential("{name}", model="FILE.pt")')
        return So3kPotential(model, options)


class So3kPotential:
    """Adds the forces of a model to a System."""

    def __init__(self, model: str, options: dict[str, Any]):
        self.model = model
        self.options = options

    def getMLLongRange(self) -> bool:
        """Whether atoms interact with distant images: no, for a part of a box classical forces do this."""
        return False

    def getSupportedEmbeddings(self) -> list[str]:
        """Additional embeddings of this potential: none, those of openmm-ml 1.8 are enough."""
        return []

    def addForces(
        self,
        topology: "app.Topology",
        system: "openmm.System",
        atoms: Iterable[int] | None,
        forceGroup: int,
        **options: Any,
    ) -> None:
        """Add the forces on some atoms, or on all where `atoms` is None.

        Args:
            topology: its atoms and box.
            system: changed in place.
            atoms: indices of the atoms that the model describes, including link atoms.
            forceGroup: of the new forces.
            **options: of `so3k_md.engines.openmm.add_model`; they override those of the constructor.

        Raises:
            So3kError: an unusable topology, model or option.
        """
        from so3k_md.engines.openmm.system import add_model
        from so3k_md.errors import So3kError

        chosen = self.options | {name: value for name, value in options.items() if name not in OF_EMBEDDINGS}
        reserved = {"system", "topology", "model", "atoms", "force_group"}
        known = set(inspect.signature(add_model).parameters) - reserved
        if unknown := sorted(set(chosen) - known):
            raise So3kError(f"so3k has no option {unknown[0]}: choose from {', '.join(sorted(known))}")
        rows = None if atoms is None else list(atoms)
        add_model(system, topology, self.model, atoms=rows, force_group=forceGroup, **chosen)
