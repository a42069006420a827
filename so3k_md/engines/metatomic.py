"""Exports local models as atomistic models of metatomic, for the engines that read these."""

from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035  metatomic compares annotations with these

import metatomic.torch as mta
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from torch import Tensor, nn

from so3k_md.errors import So3kError
from so3k_md.graph import Graph, no_long_range
from so3k_md.kernels.choose import fitting_model
from so3k_md.needs import needs_of


class So3kEnergies(nn.Module):
    """Energies in eV of systems of metatomic, which differentiates them by positions and cells.

    Args:
        model: plain and local, scripted.
        cutoff: of the pairs, Å.
    """

    def __init__(self, model: nn.Module, cutoff: float):
        super().__init__()
        self.model = model
        self.pairs = mta.NeighborListOptions(cutoff=cutoff, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[mta.NeighborListOptions]:  # noqa: UP006
        """The pairs that the engine finds."""
        return [self.pairs]

    def forward(
        self,
        systems: List[mta.System],  # noqa: UP006
        outputs: Dict[str, mta.ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """The output `energy`, of systems or of atoms, as far as they are selected."""
        samples: list[Tensor] = []
        values: list[Tensor] = []
        for k, system in enumerate(systems):
            energies = self.energies(system)
            atoms = torch.arange(len(energies), device=energies.device)
            if selected_atoms is not None:
                atoms = selected_atoms.column("atom")[selected_atoms.column("system") == k].to(torch.int64)
                energies = energies[atoms]
            samples.append(torch.stack([torch.full_like(atoms, k), atoms], dim=1))
            values.append(energies)
        if "energy" not in outputs:
            return {}
        found, names, rows = torch.cat(values), ["system", "atom"], torch.cat(samples)
        if outputs["energy"].sample_kind == "system":
            sums = torch.zeros([len(systems)], dtype=found.dtype, device=found.device)
            found, names = sums.index_add(0, rows[:, 0], found), ["system"]
            rows = torch.arange(len(systems), device=found.device)[:, None]
        one = torch.zeros([1, 1], dtype=torch.int64, device=found.device)
        found = found.to(systems[0].positions.dtype)  # added up in float64 before
        block = TensorBlock(found[:, None], Labels(names, rows), [], Labels(["energy"], one))
        return {"energy": TensorMap(Labels(["_"], one), [block])}

    def energies(self, system: mta.System) -> Tensor:
        """Energies of the atoms of one system, (atoms,), eV, float64."""
        pairs = system.get_neighbor_list(self.pairs)
        idx_i = pairs.samples.column("first_atom").to(torch.int64)
        idx_j = pairs.samples.column("second_atom").to(torch.int64)
        species, r = system.types.to(torch.int64), system.positions.to(torch.float64)
        frame = torch.zeros_like(species)
        vectors, cell = pairs.values.reshape(-1, 3).to(torch.float64), system.cell.to(torch.float64)[None]
        return self.model(
            Graph(species, vectors, idx_i, idx_j, frame, r, frame, cell, no_long_range(frame, 1))
        )


def atomistic_model(model: str | Path | nn.Module, dtype: str | None = None) -> mta.AtomisticModel:
    """A local model for engines of metatomic; `.save("FILE.pt")` writes it.

    Args:
        model: a checkpoint, an exported file, the name of a bundled model, or a model, which is not changed.
        dtype: precision of parameters and engine, float32 or float64; None keeps the model's.

    Raises:
        So3kError: a model with groups, charges, or total charge and spin, which metatomic does not pass on.
    """
    plain = fitting_model(model, "cpu", dtype, "off")
    needs = needs_of(plain)
    if needs.nonlocal_kind != "none" or needs.has_long_range or needs.has_charge_state:
        raise So3kError("metatomic runs local models without charges only: choose another engine")
    scripted = plain if isinstance(plain, torch.jit.ScriptModule) else torch.jit.script(plain)
    capabilities = mta.ModelCapabilities(
        outputs={"energy": mta.ModelOutput(unit="eV", sample_kind="atom")},
        atomic_types=list(needs.elements),
        interaction_range=needs.n_layers * needs.cutoff,
        length_unit="Angstrom",
        supported_devices=["cpu", "cuda"],
        dtype=str(next(plain.parameters()).dtype).removeprefix("torch."),
    )
    return mta.AtomisticModel(So3kEnergies(scripted, needs.cutoff).eval(), mta.ModelMetadata(), capabilities)
