"""So3krates: from a graph to the energy of each atom, read from top to bottom.

Frank, Unke & Müller, NeurIPS 2022 (arXiv:2205.14276); Frank, Unke, Müller & Chmiela, Nat. Commun. 15, 6539
(2024), the Euclidean transformer.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.errors import So3kError
from so3k_md.graph import Edges, Graph
from so3k_md.nn.embedding import AtomEmbedding, neighbour_chi
from so3k_md.nn.interaction import INTERACTIONS
from so3k_md.nn.layer import Layer
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES
from so3k_md.nn.readout import EnergyHead
from so3k_md.nn.spherical import CHI_INVARIANTS, MAX_DEGREE, SphericalHarmonics

NONLOCAL_KINDS = ("none",)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape of a model; the defaults are the 2022 model."""

    features: int = field(default=132, metadata={"doc": "F, invariant features of an atom"})
    layers: int = field(default=6, metadata={"doc": "number of layers"})
    heads: int = field(default=4, metadata={"doc": "h, heads of the feature attention; divides F"})
    degrees: tuple[int, ...] = field(default=(1, 2, 3), metadata={"doc": "L, degrees of the SPHCs, 0 to 4"})
    cutoff: float = field(default=5.0, metadata={"doc": "r_cut, Å"})
    cutoff_function: str = field(default="cosine", metadata={"doc": "cosine, physnet or polynomial"})
    cutoff_p: int = field(default=6, metadata={"doc": "order p of the polynomial cutoff"})
    radial_basis: str = field(default="physnet", metadata={"doc": "physnet, gaussian or bernstein"})
    n_rbf: int = field(default=32, metadata={"doc": "K, radial functions"})
    damp_rbf: bool = field(default=True, metadata={"doc": "multiply the radial basis by the cutoff function"})
    radial_hidden: int = field(default=128, metadata={"doc": "hidden width of the radial filter"})
    chi_hidden: int = field(default=32, metadata={"doc": "hidden width of the spherical filter"})
    direction: str = field(
        default="to_centre", metadata={"doc": "Y of r_i - r_j (to_centre) or r_j - r_i (to_neighbour)"}
    )
    chi_start: str = field(
        default="neighbours", metadata={"doc": "initial SPHCs: neighbours (2022) or zeros (2024)"}
    )
    chi_invariant: str = field(default="norm", metadata={"doc": "norm (2022) or squared (2024)"})
    norm_eps: float = field(
        default=1e-2, metadata={"doc": "ε that smooths norms at zero; 0 is the published form"}
    )
    attention_bias: bool = field(default=True, metadata={"doc": "biases in q, k and v"})
    attention_scale: float | None = field(
        default=None, metadata={"doc": "factor of α; none for 1/sqrt(width of a head)"}
    )
    interaction: str = field(default="selfmix", metadata={"doc": "selfmix (2022) or linear (2024)"})
    parity: bool = field(default=True, metadata={"doc": "SelfMix keeps mirror symmetry"})
    layer_norm: bool = field(
        default=False, metadata={"doc": "LayerNorm after attention and after the exchange"}
    )
    chi_norm: bool = field(
        default=False, metadata={"doc": "norm of the SPHCs of each degree after attention"}
    )
    residual_mlp: bool = field(default=False, metadata={"doc": "residual MLP after attention"})
    nonlocal_: str = field(default="none", metadata={"doc": "non-local attention: none"})
    n_species: int = field(
        default=100, metadata={"doc": "rows of the element tables, indexed by atomic number"}
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", tuple(int(degree) for degree in self.degrees))
        positive = (
            "features",
            "layers",
            "heads",
            "n_rbf",
            "radial_hidden",
            "chi_hidden",
            "cutoff",
            "n_species",
        )
        for name in positive:
            _require(getattr(self, name) > 0, name, getattr(self, name), "it must be positive")
        degrees = self.degrees
        _require(
            len(degrees) > 0
            and set(degrees) <= set(range(MAX_DEGREE + 1))
            and sorted(set(degrees)) == list(degrees),
            "degrees", list(degrees), f"use different degrees from 0 to {MAX_DEGREE} in rising order",
        )  # fmt: skip
        _require(
            self.features % self.heads == 0,
            "features",
            self.features,
            f"it must be divisible by heads = {self.heads}",
        )
        _require(
            self.features % len(degrees) == 0, "features", self.features,
            f"it must be divisible by the number of degrees, {len(degrees)}",
        )  # fmt: skip
        _require(self.n_rbf >= 2, "n_rbf", self.n_rbf, "at least 2 are needed")
        _require(self.cutoff_p >= 2, "cutoff_p", self.cutoff_p, "at least 2 is needed for smooth forces")
        _require(self.norm_eps >= 0, "norm_eps", self.norm_eps, "it must not be negative")
        choices: dict[str, Any] = {
            "cutoff_function": CUTOFFS,
            "radial_basis": RADIAL_BASES,
            "direction": ("to_centre", "to_neighbour"),
            "chi_start": ("neighbours", "zeros"),
            "chi_invariant": CHI_INVARIANTS,
            "interaction": INTERACTIONS,
            "nonlocal_": NONLOCAL_KINDS,
        }
        for name, allowed in choices.items():
            _require(
                getattr(self, name) in allowed,
                name,
                getattr(self, name),
                f"choose one of {', '.join(allowed)}",
            )

    @classmethod
    def preset(cls, name: str) -> "ModelConfig":
        """A published model: so3krates-2022, euclidean-2024, or its invariant twin invariant-2024."""
        if name not in PRESETS:
            raise So3kError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise So3kError(f"model.{name.rstrip('_')} = {value!r} is impossible: {remedy}")


_EUCLIDEAN = ModelConfig(
    layers=3,
    degrees=(0, 1, 2, 3),
    damp_rbf=False,
    radial_hidden=132,
    chi_hidden=33,
    direction="to_neighbour",
    chi_start="zeros",
    chi_invariant="squared",
    attention_bias=False,
    interaction="linear",
)
PRESETS = {
    "so3krates-2022": ModelConfig(),
    "euclidean-2024": _EUCLIDEAN,
    "invariant-2024": replace(_EUCLIDEAN, degrees=(0,)),
}


class So3krates(nn.Module):
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
        self.format_version = 1
        self.metadata = "{}"
        self.direction = -1.0 if config.direction == "to_centre" else 1.0
        self.damp_rbf = config.damp_rbf
        self.norm_eps = config.norm_eps

        self.cutoff_function = CUTOFFS[config.cutoff_function](config.cutoff, config.cutoff_p)
        self.radial_basis = RADIAL_BASES[config.radial_basis](config.n_rbf, config.cutoff)
        self.harmonics = SphericalHarmonics(list(config.degrees))
        self.embedding = AtomEmbedding(config.n_species, config.features, generator)
        self.layers = nn.ModuleList([Layer(config, generator) for _ in range(config.layers)])
        self.head = EnergyHead(config.n_species, config.features, generator)

    def forward(self, graph: Graph) -> Tensor:
        """Energies (atoms,) in eV, float64 whatever the dtype of the parameters."""
        edges = self.geometry(graph.vectors, graph.idx_i, graph.idx_j)
        x = self.embed(graph.species)
        chi = self.initial_chi(edges, x.shape[0])
        for k in range(self.n_layers):
            dx, dchi = self.attend(k, x, chi, x, chi, edges)
            x, chi = self.update(k, x, chi, dx, dchi)
        return self.readout(x, graph.species)

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
                dx, dchi = layer.attend(x, chi, x_src, chi_src, edges)  # type: ignore[operator]
        return dx, dchi

    @torch.jit.export
    def update(self, k: int, x: Tensor, chi: Tensor, dx: Tensor, dchi: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (x, χ) after layer k, given the sum of all messages to them."""
        for i, layer in enumerate(self.layers):
            if i == k:
                x, chi = layer.update(x, chi, dx, dchi)  # type: ignore[operator]
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
