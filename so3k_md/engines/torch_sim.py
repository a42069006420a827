"""The model of torch-sim, which runs dynamics and minimisations of many systems in batches."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_sim.models.interface import ModelInterface

from so3k_md.graph import COULOMB, CUTOFF_LR, Graph, collate, to_device
from so3k_md.kernels.choose import fitting_model
from so3k_md.model.forces import check_finite, evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build, fresh
from so3k_md.structure.coulomb import check_coulomb
from so3k_md.structure.groups import announce, check_reach
from so3k_md.structure.structure import checked


class So3kModel(ModelInterface):
    """Energies (systems,), forces (atoms, 3) and stress (systems, 3, 3) of a state, in eV and Å.

    All systems are neutral singlets, because states of torch-sim hold no charges. The stress is
    −virial / volume, and zero for open systems. Pairs are searched anew at each call.

    Args:
        model: a checkpoint, an exported file, the name of a bundled model, or a model, which is not changed.
        device: of the model and of the states.
        dtype: precision of the parameters and of the states, float32 or float64; None keeps the model's.
        groups, coulomb, cutoff_lr, kernels: as of `so3k_md.engines.ase.So3kCalculator`.

    Raises:
        So3kError: an option that is unknown or impossible, or no such model.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        device: str = "cpu",
        dtype: torch.dtype | str | None = None,
        groups: str = "auto",
        coulomb: str = COULOMB[0],
        cutoff_lr: float = CUTOFF_LR,
        kernels: str = "auto",
    ):
        super().__init__()
        check_coulomb(coulomb, cutoff_lr)
        self.model = fitting_model(model, device, dtype, kernels)
        self.needs = needs_of(self.model)
        announce(self.needs, groups)
        self.groups, self.coulomb, self.lists = groups, coulomb, fresh(self.needs, cutoff_lr)
        weight = next(self.model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._compute_stress = self._compute_forces = True

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """The results of a `torch_sim.SimState`, or of a dictionary with its fields except the masses."""
        fields = state if isinstance(state, dict) else vars(state)
        r, cells, z = (fields[name].detach().cpu() for name in ("positions", "cell", "atomic_numbers"))
        of = fields.get("system_idx")
        counts = [len(r)] if of is None else torch.bincount(of).tolist()
        rows = cells.reshape(-1, 3, 3).transpose(1, 2).to(torch.float64)  # lattice vectors are its columns
        parts = zip(z.split(counts), r.split(counts), rows, strict=True)
        graphs = [self.graph(*part, fields["pbc"], f"system {k}") for k, part in enumerate(parts)]
        graph = to_device(collate(graphs), self.device)
        found = evaluate(self.model, graph, len(graphs))
        check_finite(found, graph)
        volume = torch.linalg.det(graph.cell).abs()
        closed = (volume > 0)[:, None, None]
        stress = torch.where(closed, -found.virial / volume.clamp(min=1e-9)[:, None, None], 0.0)
        results = {"energy": found.energy, "forces": found.forces, "stress": stress}
        return {name: values.detach().to(self.dtype) for name, values in results.items()}

    def graph(self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Any, where: str) -> Graph:
        """The graph of one system; arguments are on the CPU, `cell` has lattice vectors as rows."""
        structure = checked(
            self.needs, numbers.numpy(), positions.numpy(), cell.numpy(), torch.as_tensor(pbc).cpu().numpy(),
            where=where, groups=self.groups, coulomb=self.coulomb,
        )  # fmt: skip
        graph = build(structure, self.lists)
        check_reach(self.model, self.needs, graph, where)
        return graph
