"""Computes the features of each atom of a graph layer by layer, and the backward pass through the layers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.adjoint import added, gradients, leaf
from so3k_md.graph import Edges, Graph, Reach, Rows
from so3k_md.model_config import ModelConfig
from so3k_md.nn.embedding import AtomEmbedding, ChargeAndSpin
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer
from so3k_md.nn.sphc_layer import Step


class Tape(NamedTuple):
    """Tensors that `taped` keeps for `adjoint`."""

    geometry: Edges  # with the autograd history back to the pair vectors
    edges: Edges  # the same values as leaves of a new history
    chi: Tensor  # before the first layer, with the autograd history back to `edges`
    reach: Reach
    steps: list[Step]


class Representation(nn.Module):
    """Features x of each atom after all layers.

    Its stages take rows of centres and rows of sources. ASE and OpenMM call it once for the whole structure.
    LAMMPS calls its stages layer by layer, with source rows from other ranks. Both use the same weights.

    Args:
        geometry: of pairs.
        embedding: of elements.
        charge_and_spin: of total charge and spin, or None.
        layers: of one kind.
        reach: prepares the groups for layers of this kind.
        config: shape of the model.
    """

    by_layer: torch.jit.Final[bool]

    def __init__(
        self,
        geometry: Geometry,
        embedding: AtomEmbedding,
        charge_and_spin: ChargeAndSpin | None,
        layers: list[Layer],
        reach: nn.Module,
        config: ModelConfig,
    ):
        super().__init__()
        self.geometry = geometry
        self.embedding = embedding
        self.layers: Any = nn.ModuleList(layers)
        self.charge_and_spin = charge_and_spin
        self.reach = reach
        self.chi_from_neighbors = config.chi_start == "neighbours"
        self.chi_width = config.chi_width
        self.norm_eps = config.norm_eps
        # layers that compute their non-local messages again in the backward pass have separate histories
        self.by_layer = any(layer.recomputes for layer in layers)

    def forward(self, graph: Graph) -> Tensor:
        """Features x (atoms, F) after all layers."""
        edges = self.edges(graph.vectors, graph.idx_i, graph.idx_j)
        rows = self.first_rows(graph, edges)
        steps: list[Step] = []
        return self.through_layers(rows, edges, self.reach(graph), steps, False).x

    def through_layers(self, rows: Rows, edges: Edges, reach: Reach, steps: list[Step], apart: bool) -> Rows:
        """Rows after all layers.

        Args:
            rows: before the first layer.
            edges: of `edges`.
            reach: the groups.
            steps: list to which each layer's `Step` is appended if `apart`.
            apart: whether each layer has a separate autograd history; only where `by_layer`.
        """
        for layer in self.layers:
            if self.by_layer:
                if apart:
                    step = layer.taped(rows, edges, reach)
                    steps.append(step)
                    rows = step.rows
                else:
                    rows = layer(rows, edges, reach)
            else:
                rows = layer(rows, edges, reach)
        return rows

    def taped(self, graph: Graph) -> tuple[Tensor, Tape]:
        """`forward`, and the tensors that `adjoint` reads; only where `by_layer`."""
        geometry = self.edges(graph.vectors, graph.idx_i, graph.idx_j)
        edges = Edges(
            geometry.idx_i,
            geometry.idx_j,
            leaf(geometry.rbf),
            leaf(geometry.ylm),
            leaf(geometry.cut),
            leaf(geometry.r),
            geometry.back,
        )
        rows = self.first_rows(graph, edges)
        reach = self.reach(graph)
        steps: list[Step] = []
        last = self.through_layers(rows, edges, reach, steps, True)
        return last.x, Tape(geometry, edges, rows.chi, reach, steps)

    def adjoint(self, tape: Tape, vectors: Tensor, g_x: Tensor) -> tuple[Tensor, Tensor]:
        """∂E/∂(pair vectors) and ∂E/∂r by a backward pass from layer to layer.

        Args:
            tape: of `taped`.
            vectors: pair vectors of the graph, leaves of the history.
            g_x: ∂E/∂x after all layers.
        """
        edges = tape.edges
        shared = [edges.rbf, edges.ylm, edges.cut, edges.r]
        g_shared = [torch.zeros_like(tensor) for tensor in shared]
        g_chi = torch.zeros_like(tape.chi)
        g_r = torch.zeros_like(tape.steps[0].rows.r)
        n = len(tape.steps)
        for layer in self.layers[::-1]:
            n -= 1
            g = layer.adjoint(tape.steps[n], shared, tape.reach, g_x, g_chi)
            g_x, g_chi, g_r = g[0], g[1], g_r + g[2]
            g_shared = added(g_shared, g[3:])
        if self.chi_from_neighbors:
            g_shared = added(g_shared, gradients([tape.chi], shared, [g_chi]))
        made = [tape.geometry.rbf, tape.geometry.ylm, tape.geometry.cut, tape.geometry.r]
        return gradients(made, [vectors], g_shared)[0], g_r

    @torch.jit.export
    def edges(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor) -> Edges:
        """Radial basis, harmonics and cutoff function of local pairs; see `Geometry`."""
        return self.geometry(vectors, idx_i, idx_j, self.embedding.weight)

    def first_rows(self, graph: Graph, edges: Edges) -> Rows:
        """Rows of all atoms before the first layer."""
        chi = self.initial_chi(edges, graph.species.size(0))
        return Rows(self.embed(graph.species, self.shares(graph)), chi, graph.positions)

    @torch.jit.export
    def embed(self, species: Tensor, shares: Tensor) -> Tensor:
        """Features x (rows, F) of any rows.

        Args:
            species: atomic numbers, (rows,).
            shares: of the total charge and of unpaired electrons, (rows, 2), from `ChargeAndSpin.shares`; not
                read by models without total charge and spin.
        """
        x = self.embedding(species)
        if self.charge_and_spin is not None:
            x = self.charge_and_spin(x, shares)
        return x

    def shares(self, graph: Graph) -> Tensor:
        """Shares of each atom of a graph, for `embed`."""
        if self.charge_and_spin is not None:
            return self.charge_and_spin.of_graph(graph)
        return graph.cell[:0, 0, :2]

    @torch.jit.export
    def initial_chi(self, edges: Edges, n_centres: int) -> Tensor:
        """SPHCs χ (n_centres, chi_width) before the first layer."""
        if self.chi_from_neighbors:
            return self.geometry.first_chi(edges, n_centres, self.norm_eps)
        return torch.zeros([n_centres, self.chi_width], dtype=edges.ylm.dtype, device=edges.ylm.device)
