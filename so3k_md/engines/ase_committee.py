"""The ASE calculator of a committee: the mean of several models, and how far they are from each other."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.committee import energy_deviation, forces_deviation
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.graph import Graph, Outputs
from so3k_md.model.forces import Evaluation

# Facts that decide what the graph of a structure holds, or what the results mean.
SHARED = (
    "elements",
    "cutoff",
    "nonlocal_kind",
    "max_group_diameter",
    "has_charge_state",
    "has_long_range",
    "has_zbl",
    "energy_shift",
)


class So3kCommittee(So3kCalculator):
    """The mean of several models, which share neighbor lists and graph.

    All properties are means over the members. `results` has three more: `forces_deviation` (atoms,) and its
    largest value `max_force_deviation`, eV/Å, and `energy_deviation`, eV/atom, as in `so3k_md.committee`.

    Args:
        models: at least two, each as `model` of `So3kCalculator`.
        warn: largest deviation of a force, eV/Å, above which a warning is given once.
        stop: largest deviation of a force, eV/Å, above which the calculation is refused.
        **options: of `So3kCalculator`, for all members.

    Raises:
        So3kError: fewer than two models, models that differ in a fact of SHARED, a threshold that is not a
            positive number, or as `So3kCalculator`.
    """

    def __init__(
        self,
        models: Sequence[str | Path | nn.Module],
        warn: float | None = None,
        stop: float | None = None,
        **options: Any,
    ):
        if isinstance(models, str | Path | nn.Module) or len(models) < 2:
            raise So3kError("a committee needs a list of at least two models")
        for name, value in (("warn", warn), ("stop", stop)):
            if value is not None and not 0 < value < float("inf"):
                raise So3kError(f"{name} is {value} eV/Å: give a positive number, or None for no threshold")
        super().__init__(models[0], **options)
        self.others = [So3kCalculator(model, **options) for model in models[1:]]
        for k, other in enumerate(self.others, start=2):
            for fact in SHARED:
                mine, its = getattr(self.needs, fact), getattr(other.needs, fact)
                if mine != its:
                    raise So3kError(
                        f"model {k} of the committee has {fact} {its}, the first has {mine}: take models of "
                        "one configuration and one set of data"
                    )
        self.warn, self.stop = warn, stop
        self.calculations = 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Compute means and deviations.

        Raises:
            So3kError: a deviation is above `stop`; names the atom, the value and the calculation.
        """
        self.deviations: dict[str, Any] = {}
        super().calculate(*args, **kwargs)
        self.results |= self.deviations

    def evaluation(self, graph: Graph) -> Evaluation:
        """The mean of the members; deviations are kept for the results."""
        found = [super().evaluation(graph)] + [other.evaluation(graph) for other in self.others]
        deviations = forces_deviation(torch.stack([one.forces for one in found]))
        energies = torch.stack([one.energy[0] for one in found])
        self.look(deviations)
        self.deviations = {
            "energy_deviation": energy_deviation(energies, len(deviations)).item(),
            "forces_deviation": deviations.numpy(force=True),
            "max_force_deviation": deviations.max().item(),
        }
        return mean_evaluation(found)

    def second_derivatives(self, graph: Graph) -> Tensor:
        """The mean Hessian of the members."""
        every = [super().second_derivatives(graph)] + [one.second_derivatives(graph) for one in self.others]
        return torch.stack(every).mean(0)

    def look(self, deviations: Tensor) -> None:
        """Compare the largest deviation with the thresholds.

        Raises:
            So3kError: it is above `stop`.
        """
        self.calculations += 1
        atom = int(deviations.argmax())
        value = deviations[atom].item()
        where = f"atom {atom}, calculation {self.calculations}"
        what = f"the models deviate by {value:.3g} eV/Å in the force on {where}"
        if self.stop is not None and value > self.stop:
            raise So3kError(f"{what}; stop is {self.stop:g}: add such structures to the training data")
        if self.warn is not None and value > self.warn and "deviation" not in self.warnings_given:
            self.warnings_given.add("deviation")
            warnings.warn(f"{what}; warn is {self.warn:g}", So3kWarning, stacklevel=2)


def mean_evaluation(found: Sequence[Evaluation]) -> Evaluation:
    """The mean of evaluations of one graph, field by field."""
    outputs = Outputs(
        *(torch.stack(each).mean(0) for each in zip(*(one.outputs for one in found), strict=True))
    )
    rest = (torch.stack(each).mean(0) for each in zip(*(one[1:] for one in found), strict=True))
    return Evaluation(outputs, *rest)
