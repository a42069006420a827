"""So3krates: from a graph to the energy of each atom, read from top to bottom.

Frank, Unke & Müller, NeurIPS 2022 (arXiv:2205.14276); Frank, Unke, Müller & Chmiela, Nat. Commun. 15, 6539
(2024), the Euclidean transformer.
"""

import torch
from torch import Tensor, nn

from so3k_md.adjoint import added, gradients, leaf
from so3k_md.graph import Edges, Graph, Slopes
from so3k_md.model_config import PRESETS, ModelConfig
from so3k_md.nn.embedding import AtomEmbedding, neighbour_chi
from so3k_md.nn.layer import Layer
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES
from so3k_md.nn.readout import EnergyHead
from so3k_md.nn.spherical import DegreeSum, SphericalHarmonics
from so3k_md.nn.waves import WAVES
from so3k_md.nonlocal_stages import FarStages

__all__ = ["FORMAT_VERSION", "PRESETS", "ModelConfig", "So3krates", "set_dtype"]

FORMAT_VERSION = 2  # of the exported file: its stages and attributes

TILE = 32768  # far pairs evaluated at once: enough to be fast, few enough to fit a cache


class So3krates(FarStages):
    """Energy of each atom of a graph.

    Its stages take rows of centres and rows of sources, so that the same weights serve one call on a whole
    structure and the layer-by-layer call of an engine whose source rows are copies from other ranks.

    Args:
        config: shape of the model.
        elements: atomic numbers that the model knows.
        seed: of the initial weights; the global generator is not touched.
    """

    def __init__(self, config: ModelConfig, elements: list[int] | None = None, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = config
        self.elements = sorted(elements) if elements else list(range(1, config.n_species))
        self.cutoff = config.cutoff
        self.n_layers = config.layers
        self.features = config.features
        self.chi_width = sum(2 * degree + 1 for degree in config.degrees)
        self.chi_from_neighbours = config.chi_start == "neighbours"
        self.nonlocal_kind = config.nonlocal_
        self.has_sphc = config.nonlocal_ == "sphc"  # type: ignore[misc]
        self.has_efa = config.nonlocal_ == "efa"  # type: ignore[misc]
        self.far_reach = 0.0
        self.tile = TILE
        self.format_version = FORMAT_VERSION
        self.metadata = "{}"
        self.direction = -1.0 if config.direction == "to_centre" else 1.0
        self.damp_rbf = config.damp_rbf
        self.norm_eps = config.norm_eps

        self.cutoff_function = CUTOFFS[config.cutoff_function](config.cutoff, config.cutoff_p)
        self.radial_basis = RADIAL_BASES[config.radial_basis](config.n_rbf, config.cutoff)
        self.harmonics = SphericalHarmonics(list(config.degrees))
        self.degree_sum = DegreeSum(list(config.degrees))
        self.embedding = AtomEmbedding(config.n_species, config.features, generator)
        self.layers = nn.ModuleList([Layer(config, generator) for _ in range(config.layers)])
        self.head = EnergyHead(config.n_species, config.features, generator)
        if self.has_efa:
            settings = config.efa_features // 2, config.efa_grid, config.efa_reach, config.efa_k_max
            self.efa_waves = WAVES[config.efa_waves](*settings)
            self.far_reach = config.efa_reach if config.efa_waves == "lebedev" else 0.0

    def forward(self, graph: Graph) -> Tensor:
        """Energies (atoms,) in eV, float64 whatever the dtype of the parameters."""
        edges = self.geometry(graph.vectors, graph.idx_i, graph.idx_j)
        x = self.embed(graph.species)
        chi = self.initial_chi(edges, x.shape[0])
        if self.has_efa:
            waves, group, n_groups = self.checked_waves(graph)
        if self.has_sphc:
            groups = self.group_rows(graph.group, graph.group, torch.arange(x.shape[0], device=x.device))
        for k in range(self.n_layers):
            dx, dchi = self.attend(k, x, chi, x, chi, edges)
            if self.has_efa:
                far_dx, far_dchi = self.far_whole(k, x, chi, waves, group, n_groups)
                dx, dchi = dx + far_dx, dchi + far_dchi
            if self.has_sphc:
                dchi = dchi + self.far_messages(k, x, chi, graph.positions, groups)
            x, chi = self.update(k, x, chi, dx, dchi)
        return self.readout(x, graph.species)

    @torch.jit.export
    def gradient(self, graph: Graph) -> Slopes:
        """Energies and their derivatives by pair vectors, positions and cell, without their history."""
        vectors, positions, cell = leaf(graph.vectors), leaf(graph.positions), leaf(graph.cell)
        if self.has_sphc:
            return self.tiled_gradient(graph, vectors)
        energies = self.forward(
            Graph(graph.species, vectors, graph.idx_i, graph.idx_j, graph.frame, positions, graph.group, cell)
        )
        found = gradients([energies], [vectors, positions, cell], [torch.ones_like(energies)])
        with torch.no_grad():
            return Slopes(energies.clone(), found[0], found[1], found[2])

    def tiled_gradient(self, graph: Graph, vectors: Tensor) -> Slopes:
        """The same by a reverse pass from layer to layer, which makes the far messages anew, tile by tile."""
        n_atoms = graph.species.size(0)
        groups = self.group_rows(graph.group, graph.group, torch.arange(n_atoms, device=vectors.device))
        r = graph.positions
        geometry = self.geometry(vectors, graph.idx_i, graph.idx_j)
        edges = Edges(graph.idx_i, graph.idx_j, leaf(geometry.rbf), leaf(geometry.ylm), leaf(geometry.cut))
        chi_start = self.initial_chi(edges, n_atoms)
        x, chi = leaf(self.embed(graph.species)), leaf(chi_start)
        inputs: list[list[Tensor]] = []
        outputs: list[list[Tensor]] = []
        for k in range(self.n_layers):
            with torch.no_grad():
                # of copies: TorchScript would hand what `attend` has in common with it on, without its graph
                far = self.far_messages(k, x.clone(), chi.clone(), r, groups)
            far = leaf(far)
            dx, dchi = self.attend(k, x, chi, x, chi, edges)
            x_next, chi_next = self.update(k, x, chi, dx, dchi + far)
            inputs.append([x, chi, far])
            outputs.append([x_next, chi_next])
            x, chi = leaf(x_next), leaf(chi_next)
        energies = self.readout(x, graph.species)

        shared = [edges.rbf, edges.ylm, edges.cut]
        g_x = gradients([energies], [x], [torch.ones_like(energies)])[0]
        g_chi, g_r = torch.zeros_like(chi), torch.zeros_like(r)
        g_shared = [torch.zeros_like(tensor) for tensor in shared]
        for step in range(self.n_layers):
            k = self.n_layers - 1 - step
            found = gradients(outputs[k], inputs[k] + shared, [g_x, g_chi])
            far_x, far_chi, far_r = self.far_adjoint(k, inputs[k][0], inputs[k][1], r, groups, found[2])
            g_x, g_chi, g_r = found[0] + far_x, found[1] + far_chi, g_r + far_r
            g_shared = added(g_shared, found[3:])
        if self.chi_from_neighbours:
            g_shared = added(g_shared, gradients([chi_start], shared, [g_chi]))
        g_vectors = gradients([geometry.rbf, geometry.ylm, geometry.cut], [vectors], g_shared)[0]
        with torch.no_grad():
            return Slopes(energies.clone(), g_vectors, g_r, torch.zeros_like(graph.cell))

    @torch.jit.export
    def geometry(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor) -> Edges:
        """Radial basis, harmonics and cutoff function of all pairs.

        Args:
            vectors: r_j − r_i, (pairs, 3), Å, of any floating type.
            idx_i: centre rows, (pairs,).
            idx_j: source rows, (pairs,).
        """
        vectors = vectors.to(self.embedding.weight.dtype)
        # a floor under the distance keeps unit vectors and gradients finite for atoms at the same place
        r = torch.sqrt((vectors * vectors).sum(1).clamp(min=1e-24))
        cut = self.cutoff_function(r)
        rbf = self.radial_basis(r)
        if self.damp_rbf:
            rbf = rbf * cut[:, None]
        ylm = self.harmonics(vectors * (self.direction / r)[:, None])
        return Edges(idx_i, idx_j, rbf, ylm, cut)

    @torch.jit.export
    def embed(self, species: Tensor) -> Tensor:
        """Features x (rows, F) of any rows from their atomic numbers."""
        return self.embedding(species)

    @torch.jit.export
    def initial_chi(self, edges: Edges, n_centres: int) -> Tensor:
        """SPHCs χ (n_centres, chi_width) before the first layer."""
        if self.chi_from_neighbours:
            return neighbour_chi(edges, n_centres, self.norm_eps)
        return torch.zeros([n_centres, self.chi_width], dtype=edges.ylm.dtype, device=edges.ylm.device)

    @torch.jit.export
    def attend(
        self, k: int, x: Tensor, chi: Tensor, x_src: Tensor, chi_src: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) of layer k to the centres (x, χ) from the sources (x_src, χ_src)."""
        dx, dchi = x, chi
        for i, layer in enumerate(self.layers):
            if i == k:
                dx, dchi = layer.attend(x, chi, x_src, chi_src, edges)
        return dx, dchi

    @torch.jit.export
    def update(self, k: int, x: Tensor, chi: Tensor, dx: Tensor, dchi: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (x, χ) after layer k, given the sum of all messages to them."""
        for i, layer in enumerate(self.layers):
            if i == k:
                x, chi = layer.update(x, chi, dx, dchi)
        return x, chi

    @torch.jit.export
    def readout(self, x: Tensor, species: Tensor) -> Tensor:
        """Energies (atoms,) in eV, float64."""
        return self.head(x, species)


def set_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change the precision of the parameters in place; constants stay float64 and are cast at use."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model
