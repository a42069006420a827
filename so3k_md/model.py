"""So3krates: from a graph to the energy of each atom, read from top to bottom.

Frank, Unke & Müller, NeurIPS 2022 (arXiv:2205.14276); Frank, Unke, Müller & Chmiela, Nat. Commun. 15, 6539
(2024), the Euclidean transformer.
"""

import copy
import hashlib
from typing import TypeVar

import torch
from torch import Tensor, nn

from so3k_md.adjoint import added, gradients, leaf
from so3k_md.facts import Facts
from so3k_md.graph import Edges, Graph, Slopes
from so3k_md.model_config import PRESETS, ModelConfig
from so3k_md.nn.embedding import AtomEmbedding, TotalEmbedding, neighbour_chi
from so3k_md.nn.layer import Layer
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES, BernsteinBasis
from so3k_md.nn.readout import ChargeHead, EnergyHead, RatioHead
from so3k_md.nn.spherical import DegreeSum, SphericalHarmonics, SquaredNorm
from so3k_md.nn.waves import WAVES
from so3k_md.nonlocal_stages import FarStages
from so3k_md.physical_stages import Assessment, PhysicalStages
from so3k_md.physics.kspace import LatticeSum
from so3k_md.physics.long_range import LongPairs
from so3k_md.physics.zbl import ZBL

__all__ = ["FORMAT_VERSION", "PRESETS", "ModelConfig", "So3krates", "set_dtype", "still_copy", "weights_hash"]

FORMAT_VERSION = 5  # of the exported file: its stages and attributes

AnyModel = TypeVar("AnyModel", bound=nn.Module)

TILE = 32768  # far pairs evaluated at once: enough to be fast, few enough to fit a cache


PEER_SHARE_EPS = 1e-6


class So3krates(FarStages, PhysicalStages):
    """Energy of each atom of a graph.

    Its stages take rows of centres and rows of sources, so that the same weights serve one call on a whole
    structure and the layer-by-layer call of an engine whose source rows are copies from other ranks.

    Args:
        config: shape of the model.
        elements: atomic numbers that the model knows.
        seed: of the initial weights; the global generator is not touched.
    """

    # TorchScript reads these of the last class that has annotations, hence all of them here
    has_sphc: torch.jit.Final[bool]  # type: ignore[misc]
    has_efa: torch.jit.Final[bool]  # type: ignore[misc]
    has_totals: torch.jit.Final[bool]  # type: ignore[misc]
    has_zbl: torch.jit.Final[bool]  # type: ignore[misc]
    has_long_range: torch.jit.Final[bool]  # type: ignore[misc]

    def __init__(self, config: ModelConfig, elements: list[int] | None = None, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = config
        facts = Facts(sorted(elements) if elements else list(range(1, config.n_species)))
        self.elements, self.metadata, self.singlets_only, self.energy_shift = facts[:4]
        self.coulomb, self.cutoff_lr = facts[4:]
        self.cutoff = config.cutoff
        self.n_layers = config.layers
        self.features = config.features
        self.chi_width = sum(2 * degree + 1 for degree in config.degrees)
        self.chi_from_neighbours = config.chi_start == "neighbours"
        self.nonlocal_kind = config.nonlocal_
        self.has_sphc = config.nonlocal_ == "sphc"
        self.has_efa = config.nonlocal_ == "efa"
        self.has_totals = config.charge_embedding or config.spin_embedding or config.electrostatics
        self.has_zbl = config.zbl
        self.has_long_range = config.electrostatics
        self.far_reach = 0.0
        self.share_eps = PEER_SHARE_EPS if config.rounding == "peer" else 0.0
        self.knows_charge, self.knows_spin = config.charge_embedding, config.spin_embedding
        self.embedding_scale = (1 + int(self.knows_charge) + int(self.knows_spin)) ** -0.5
        self.tile = TILE
        self.tiled = self.has_sphc
        self.format_version = FORMAT_VERSION
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
        if self.has_totals:
            self.charge_embedding = TotalEmbedding(config.n_species, config.features, generator)
            self.spin_embedding = TotalEmbedding(config.n_species, config.features, generator)
        if self.has_zbl:
            self.repulsion = ZBL()
        if self.has_long_range:
            self.charge_head = ChargeHead(config.n_species, config.features, generator)
            self.ratio_head = RatioHead(config.n_species, config.features, config.features // 2, generator)
            self.long_pairs = LongPairs(config.rounding)
            self.lattice_sum = LatticeSum()
        if config.rounding == "peer":
            round_constants(self)
        if self.has_efa:
            settings = config.efa_features // 2, config.efa_grid, config.efa_reach, config.efa_k_max
            self.efa_waves = WAVES[config.efa_waves](*settings)
            self.far_reach = config.efa_reach if config.efa_waves == "lebedev" else 0.0

    def forward(self, graph: Graph) -> Tensor:
        """Energies (atoms,) in eV, float64 whatever the dtype of the parameters."""
        return self.assess(self.last_features(graph), graph).energies

    def last_features(self, graph: Graph) -> Tensor:
        """Features x (atoms, F) after all layers."""
        edges = self.geometry(graph.vectors, graph.idx_i, graph.idx_j)
        x = self.embed(graph.species, self.total_shares(graph))
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
        return x

    @torch.jit.export
    def gradient(self, graph: Graph) -> Slopes:
        """Energies and their derivatives by pair vectors, positions and cell, without their history."""
        vectors, positions, cell = leaf(graph.vectors), leaf(graph.positions), leaf(graph.cell)
        # a new graph, for TorchScript has no `_replace`
        atoms, idx_i, idx_j = graph.species, graph.idx_i, graph.idx_j
        leaves = Graph(atoms, vectors, idx_i, idx_j, graph.frame, positions, graph.group, cell, graph.long)
        if self.tiled:
            return self.tiled_gradient(leaves)
        found = self.assess(self.last_features(leaves), leaves)
        slopes = gradients([found.energies], [vectors, positions, cell], [torch.ones_like(found.energies)])
        return slopes_of(found, slopes[0], slopes[1], slopes[2])

    def tiled_gradient(self, graph: Graph) -> Slopes:
        """The same by a reverse pass from layer to layer, which makes the far messages anew, tile by tile."""
        n_atoms, vectors = graph.species.size(0), graph.vectors
        groups = self.group_rows(graph.group, graph.group, torch.arange(n_atoms, device=vectors.device))
        r = graph.positions
        geometry = self.geometry(vectors, graph.idx_i, graph.idx_j)
        edges = Edges(
            geometry.idx_i,
            geometry.idx_j,
            leaf(geometry.rbf),
            leaf(geometry.ylm),
            leaf(geometry.cut),
            leaf(geometry.r),
            geometry.back,
        )
        chi_start = self.initial_chi(edges, n_atoms)
        x, chi = leaf(self.embed(graph.species, self.total_shares(graph))), leaf(chi_start)
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
        found = self.assess(x, graph)

        shared = [edges.rbf, edges.ylm, edges.cut, edges.r]
        g_x, g_close = gradients([found.energies], [x, vectors], [torch.ones_like(found.energies)])
        g_chi, g_r = torch.zeros_like(chi), torch.zeros_like(r)
        g_shared = [torch.zeros_like(tensor) for tensor in shared]
        for step in range(self.n_layers):
            k = self.n_layers - 1 - step
            g = gradients(outputs[k], inputs[k] + shared, [g_x, g_chi])
            far_x, far_chi, far_r = self.far_adjoint(k, inputs[k][0], inputs[k][1], r, groups, g[2])
            g_x, g_chi, g_r = g[0] + far_x, g[1] + far_chi, g_r + far_r
            g_shared = added(g_shared, g[3:])
        if self.chi_from_neighbours:
            g_shared = added(g_shared, gradients([chi_start], shared, [g_chi]))
        outputs_of_geometry = [geometry.rbf, geometry.ylm, geometry.cut, geometry.r]
        g_vectors = gradients(outputs_of_geometry, [vectors], g_shared)[0]
        return slopes_of(found, g_vectors + g_close, g_r, torch.zeros_like(graph.cell))

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
        return Edges(idx_i, idx_j, rbf, ylm, cut, r, torch.empty([0], dtype=torch.bool, device=r.device))

    @torch.jit.export
    def embed(self, species: Tensor, shares: Tensor) -> Tensor:
        """Features x (rows, F) of any rows.

        Args:
            species: atomic numbers, (rows,).
            shares: of the total charge and of unpaired electrons, (rows, 2), as `shares` gives them; not read
                by models that know nothing of either.
        """
        x = self.embedding(species)
        if self.has_totals:
            # most structures are neutral singlets, to which nothing is added
            if bool(shares.any()):
                charge, spin = shares.to(x.dtype).unbind(1)
                if self.knows_charge:
                    x = x + self.charge_embedding(charge)
                if self.knows_spin:
                    x = x + self.spin_embedding(spin)
            x = x * self.embedding_scale
        return x

    @torch.jit.export
    def initial_chi(self, edges: Edges, n_centres: int) -> Tensor:
        """SPHCs χ (n_centres, chi_width) before the first layer."""
        if self.chi_from_neighbours:
            return neighbour_chi(self.directed(edges), n_centres, self.norm_eps)
        return torch.zeros([n_centres, self.chi_width], dtype=edges.ylm.dtype, device=edges.ylm.device)

    def directed(self, edges: Edges) -> Edges:
        """The pairs in both directions, as `geometry` gives them here."""
        return edges

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


def round_constants(model: nn.Module) -> None:
    """Round the constants that the peer keeps in float32, in place, to compare with it digit by digit."""
    for part in model.modules():
        if isinstance(part, SquaredNorm):
            part.weight.copy_(part.weight.float())
        elif isinstance(part, BernsteinBasis):
            part.ln_binomial.copy_(part.ln_binomial.float())
            part.gamma = float(torch.tensor(part.gamma, dtype=torch.float32))


def slopes_of(found: Assessment, vectors: Tensor, positions: Tensor, cell: Tensor) -> Slopes:
    """All derivatives: those taken of a tape, and those that came in closed form."""
    with torch.no_grad():
        return Slopes(
            found.energies.clone(),
            vectors,
            positions + found.positions,
            cell,
            found.virial,
            found.charges,
            found.ratios,
            found.parts.clone(),
        )


def still_copy(model: AnyModel) -> AnyModel:
    """A copy for evaluation, to be set, cast and moved while the model itself stays as it is."""
    with torch.no_grad():  # else the copies of scripted parameters are not leaves
        still = copy.deepcopy(model).eval()
    for parameter in still.parameters():  # of scripted models as well, which have no `requires_grad_`
        parameter.requires_grad_(False)
    return still


def set_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change the precision of the parameters in place; constants stay float64 and are cast at use."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
