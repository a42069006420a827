"""So3krates, the force field: computes outputs of each atom of a graph and derivatives of the energy.

Frank, Unke & Müller, NeurIPS 2022 (arXiv:2205.14276); Frank, Unke, Müller & Chmiela, Nat. Commun. 15, 6539
(2024), the Euclidean transformer.
"""

import torch
from torch import Generator, Tensor, nn

from so3k_md.adjoint import gradients, leaf
from so3k_md.graph import Gradient, Graph, detached
from so3k_md.model.energies import Assessment
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.model.representation import Representation
from so3k_md.model_config import ModelConfig, needs_of_config
from so3k_md.needs import Needs
from so3k_md.nn.efa_layer import EfaReach
from so3k_md.nn.embedding import AtomEmbedding, ChargeAndSpin, TotalEmbedding
from so3k_md.nn.layer import NoReach
from so3k_md.nn.readout import ChargeHead, EnergyHead, RatioHead
from so3k_md.nn.sphc_layer import SphcReach
from so3k_md.physics.zbl import ZBL

REACHES: dict[str, type[nn.Module]] = {"none": NoReach, "sphc": SphcReach, "efa": EfaReach}


class So3krates(nn.Module):
    """Energies of the atoms of a graph, and all derivatives of their sum.

    Args:
        config: shape of the model.
        elements: atomic numbers that the model knows.
        seed: of the initial weights; torch's global random generator is not used.
        parts: the classes of the parts, plain or compiled.
    """

    needs: Needs
    form: str
    by_layer: torch.jit.Final[bool]

    def __init__(
        self,
        config: ModelConfig,
        elements: list[int] | None = None,
        seed: int = 0,
        parts: Parts = PLAIN,
    ):
        super().__init__()
        generator = Generator().manual_seed(seed)
        known = sorted(elements) if elements else list(range(1, config.n_species))
        self.config = config
        self.needs = needs_of_config(config, known)
        self.form = parts.form
        features, n_species = config.features, config.n_species

        geometry = parts.geometry(config)
        embedding = AtomEmbedding(n_species, features, generator)
        chi_is_zero = config.chi_start == "zeros"
        layer = parts.layers[config.nonlocal_]
        layers = [layer(config, generator, geometry, k == 0 and chi_is_zero) for k in range(config.layers)]
        head = EnergyHead(n_species, features, generator)
        embedded_totals = charge_and_spin(config, generator)
        physics = long_range_physics(config, generator, parts)
        reach = REACHES[config.nonlocal_](config)
        self.representation = Representation(geometry, embedding, embedded_totals, layers, reach, config)
        self.by_layer = self.representation.by_layer
        self.energies = parts.energies(head, ZBL() if config.zbl else None, physics, geometry)

    def forward(self, graph: Graph) -> Tensor:
        """Energies (atoms,) in eV, float64 whatever the dtype of the parameters."""
        return self.assess(graph).outputs.energies

    def assess(self, graph: Graph) -> Assessment:
        """All outputs of the atoms of a graph, with their autograd history."""
        return self.energies(self.representation(graph), graph)

    @torch.jit.export
    def gradient(self, graph: Graph) -> Gradient:
        """Outputs, and the derivatives of Σ energies by pair vectors, positions and cell."""
        vectors, positions, cell = leaf(graph.vectors), leaf(graph.positions), leaf(graph.cell)
        # a new graph is built because TorchScript has no `_replace`
        atoms, idx_i, idx_j = graph.species, graph.idx_i, graph.idx_j
        leaves = Graph(atoms, vectors, idx_i, idx_j, graph.frame, positions, graph.group, cell, graph.long)
        if self.by_layer:
            last, tape = self.representation.taped(leaves)
            x = leaf(last)
            found = self.energies(x, leaves)
            energies = found.outputs.energies
            g_x, g_close = gradients([energies], [x, vectors], [torch.ones_like(energies)])
            g_vectors, g_positions = self.representation.adjoint(tape, vectors, g_x)
            return gradient_of(found, g_vectors + g_close, g_positions, torch.zeros_like(cell))
        found = self.assess(leaves)
        energies = found.outputs.energies
        g = gradients([energies], [vectors, positions, cell], [torch.ones_like(energies)])
        return gradient_of(found, g[0], g[1], g[2])

    @torch.jit.export
    def gradient_tensors(self, graph: Graph) -> list[Tensor]:
        """The tensors of `gradient` in their order; Python makes classes for named tuples at each call."""
        found = self.gradient(graph)
        outputs = [found.outputs.energies, found.outputs.parts, found.outputs.charges, found.outputs.ratios]
        return outputs + [found.vectors, found.positions, found.cell, found.virial]


def charge_and_spin(config: ModelConfig, generator: Generator) -> ChargeAndSpin | None:
    """The embedding of total charge and spin that a model has."""

    def embedding(wanted: bool) -> TotalEmbedding | None:
        return TotalEmbedding(config.n_species, config.features, generator) if wanted else None

    if not (config.charge_embedding or config.spin_embedding):
        return None
    return ChargeAndSpin(embedding(config.charge_embedding), embedding(config.spin_embedding))


def long_range_physics(config: ModelConfig, generator: Generator, parts: Parts) -> LongRangePhysics | None:
    """The electrostatics and dispersion that a model has."""
    if not config.electrostatics:
        return None
    features, n_species = config.features, config.n_species
    charge_head = ChargeHead(n_species, features, generator)
    ratio_head = RatioHead(n_species, features, features // 2, generator)
    return parts.physics(charge_head, ratio_head, parts.long_pairs(), parts.lattice_sum())


def gradient_of(found: Assessment, vectors: Tensor, positions: Tensor, cell: Tensor) -> Gradient:
    """All derivatives: those that autograd computes plus those in closed form."""
    with torch.no_grad():
        return Gradient(detached(found.outputs), vectors, positions + found.positions, cell, found.virial)
