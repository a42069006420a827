"""The parts of a model for training: kernels with live weights that can be differentiated twice, on CPUs.

Names, weights and results are those of the plain parts. Radial filters are interpolated between knots of the
distance, whose values and derivatives follow from the weights at each call (`kernels/cpu/knots.h`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.graph import Edges, Rows
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.energies import cutoff_order
from so3k_md.kernels.table import derivative
from so3k_md.model.energies import Energies
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.model_config import ModelConfig
from so3k_md.nn.attention import Attention, FilterNet
from so3k_md.nn.efa_layer import EfaLayer
from so3k_md.nn.geometry import Geometry, empty_bool
from so3k_md.nn.layer import Layer
from so3k_md.nn.linear import MLP
from so3k_md.physics.kspace import LatticeSum
from so3k_md.physics.long_range import LongPairs

BEND = 2.0  # Å, as in kernels/cpu/knots.h
# Intervals between knots. Relative errors of filters and their derivatives, the largest of all bases:
# 2e-5 and 8e-5 (float32), 9e-11 and 3e-9 (float64).
INTERVALS = {torch.float32: 64, torch.float64: 512}


class AttendWeights(NamedTuple):
    """Weights of the local messages as `so3k::train_attend` reads them; empty where there is no bias."""

    query: Tensor
    query_bias: Tensor
    key: Tensor
    key_bias: Tensor
    value: Tensor
    value_bias: Tensor
    chi_query: Tensor  # of degrees
    chi_query_bias: Tensor
    chi_key: Tensor
    chi_key_bias: Tensor
    filters: list[Tensor]  # of features, then of degrees: hidden and output layers of both parts, with biases


class UpdateParameters(NamedTuple):
    """Weights of the exchange as `so3k::train_update` reads them; empty where a layer lacks a part."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    mlp_first: Tensor
    mlp_first_bias: Tensor
    mlp_second: Tensor
    mlp_second_bias: Tensor
    chi_scale: Tensor
    linear: Tensor
    linear_bias: Tensor
    mixing: Tensor  # of SelfMix: from products of two components of χ to χ̃
    mixed_linear: Tensor
    mixed_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor


class TrainingGeometry(Geometry):
    """`Geometry` that lists each pair once, in one direction; lists must have both directions."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.cutoff_p = cutoff_order(self)
        self.degrees = list(config.degrees)
        self.intervals = dict(INTERVALS)
        self.constants: dict[torch.dtype, tuple[list[Tensor], Tensor]] = {}

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, like: Tensor) -> Edges:
        """Everything that layers read of local pairs; arguments as in `Geometry`."""
        kept, idx_i, idx_j = torch.ops.so3k.train_pairs(vectors.detach(), idx_i, idx_j)
        steps, knots = self.constants_of(like.dtype)
        r, cut, ylm = torch.ops.so3k.train_geometry(
            vectors, kept, steps, self.degrees, self.direction, self.cutoff, self.cutoff_p
        )
        return Edges(idx_i, idx_j, knots, ylm, cut, r, empty_bool(r))

    def first_chi(self, edges: Edges, n_centres: int, eps: float) -> Tensor:
        """As in `Geometry`."""
        found: Tensor = torch.ops.so3k.train_first_chi(
            edges.cut, edges.ylm, edges.idx_i, edges.idx_j, self.degrees, eps, n_centres
        )
        return found

    def constants_of(self, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
        """Matrices from each degree of harmonics to the next, and the radial basis at the knots.

        The basis is (knots, 3, n_rbf): values, first and second derivatives by the number of the knot.
        """
        if dtype not in self.constants:
            steps = [step.weight.t().to(dtype).clone() for step in self.harmonics.steps]
            knots = self.knots(self.intervals[dtype]).to(dtype)
            # at least one tensor, because the kernel takes the precision from it
            self.constants[dtype] = steps or [torch.zeros([3, 3], dtype=dtype)], knots
        return self.constants[dtype]

    def knots(self, intervals: int) -> Tensor:
        """The radial basis and its derivatives at knots that are denser at short distances, float64."""
        with torch.enable_grad():
            # the last knot lies below the cutoff, where the derivatives of the cutoff function jump
            x = torch.arange(intervals + 1, dtype=torch.float64).clamp(max=intervals * (1.0 - 1e-15))
            x.requires_grad_()
            share = x / intervals * (self.cutoff / (self.cutoff + BEND))
            r = BEND * share / (1.0 - share)
            basis = self.damped_basis(r) if self.damp_rbf else self.radial_basis(r)
            first = derivative(basis, x)
            found = torch.stack([basis, first, derivative(first, x)], dim=1).detach()
        # derivatives may diverge at distance zero, which no pair of atoms has
        return torch.nan_to_num(found, 0.0, 0.0, 0.0)


class TrainingLayer(Layer):
    """`Layer` whose messages and exchange are one operator each; arguments as in `Layer`."""

    def __init__(self, config: ModelConfig, generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__(config, generator, geometry, is_first)
        self.degrees = list(config.degrees)
        self.cutoff = config.cutoff
        self.squared = config.chi_invariant == "squared"
        self.normed, self.chi_normed = config.layer_norm, config.chi_norm
        self.residual, self.mixes = config.residual_mlp, config.interaction == "selfmix"

    def attend(self, centres: Rows, sources: Rows, edges: Edges) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the atoms from their local neighbors; the sources are the centres."""
        weights = attend_weights(self)
        dx, dchi = torch.ops.so3k.train_attend(
            [centres.x, centres.chi, edges.r, edges.cut, edges.ylm],
            [*weights[:-1], *weights.filters],
            edges.idx_i,
            edges.idx_j,
            edges.rbf,
            self.degrees,
            self.feature_attention.heads,
            self.squared,
            self.norm_eps,
            self.cutoff,
            self.feature_attention.attention.scale,
            self.geometric_attention.attention.scale,
        )
        return dx, dchi

    def update(self, rows: Rows, dx: Tensor, dchi: Tensor) -> Rows:
        """Residual sums of all messages, optional norms, and the atom-wise exchange."""
        none = rows.x[:0, 0].detach()
        mix = self.interaction.mix if self.mixes else None
        x, chi = torch.ops.so3k.train_update(
            [rows.x, dx, rows.chi, dchi],
            list(update_parameters(self, none)),
            none if mix is None else mix.left,
            none if mix is None else mix.right,
            self.degrees,
            self.squared,
            self.norm_eps,
        )
        return Rows(x, chi, rows.r)


class TrainingEfaLayer(TrainingLayer, EfaLayer):
    """`EfaLayer` whose local messages and exchange are operators."""


class TrainingEnergies(Energies):
    """`Energies` whose learned part is an operator."""

    def readout(self, x: Tensor, species: Tensor) -> Tensor:
        """Learned energies (atoms,) in eV, float64."""
        head = self.head
        raw = torch.ops.so3k.train_mlp(x, mlp_weights(head.mlp)).squeeze(1).to(torch.float64)
        return torch.addcmul(head.shift.index_select(0, species), head.scale.index_select(0, species), raw)


TRAINING = Parts(
    "training",
    TrainingGeometry,
    {"none": TrainingLayer, "efa": TrainingEfaLayer},
    TrainingEnergies,
    LongRangePhysics,
    LongPairs,
    LatticeSum,
)


def training_parts(config: ModelConfig, device: str | torch.device, dtype: torch.dtype) -> tuple[Parts, str]:
    """The parts with which a model is trained, and the reason.

    Args:
        config: shape of the model.
        device: on which it is trained.
        dtype: of its weights.
    """
    if torch.device(device).type != "cpu":
        return PLAIN, "the kernels for training are for CPUs"
    if dtype != torch.float32:
        return PLAIN, "in float64 the plain layers are faster"
    if config.nonlocal_ not in TRAINING.layers:
        return PLAIN, f"there are no kernels for training of {config.nonlocal_} layers"
    if not load_kernels():
        return PLAIN, "the kernels are not built; build them with so3k-md kernels build"
    return TRAINING, "the kernels are built"


def attend_weights(layer: Layer) -> AttendWeights:
    """The weights of the local messages of a layer."""
    features, value = layer.feature_attention.attention, layer.feature_attention.value
    none = value.weight.detach()[:0, 0, 0]
    return AttendWeights(
        *maps(features, none),
        value.weight,
        or_none(value.bias, none),
        *maps(layer.geometric_attention.attention, none),
        [*filter_weights(layer.feature_filter), *filter_weights(layer.geometric_filter)],
    )


def maps(attention: Attention, none: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of queries and keys."""
    query, key = attention.query, attention.key
    return query.weight, or_none(query.bias, none), key.weight, or_none(key.bias, none)


def filter_weights(net: FilterNet) -> list[Tensor]:
    """Weights of the radial and of the spherical part of a filter."""
    return [*mlp_weights(net.radial), *mlp_weights(net.spherical)]


def mlp_weights(mlp: MLP) -> list[Tensor]:
    """Weight and bias of the hidden layer and of the output."""
    hidden, out = mlp.hidden, mlp.out
    assert hidden.bias is not None
    assert out.bias is not None
    return [hidden.weight, hidden.bias, out.weight, out.bias]


def update_parameters(layer: TrainingLayer, none: Tensor) -> UpdateParameters:
    """The weights of the exchange of a layer.

    Args:
        layer: of any shape.
        none: an empty tensor of its precision.
    """
    norm1, norm2, first, second = [none, none], [none, none], [none, none], [none, none]
    mix = [none, none, none]
    exchange = layer.interaction
    if layer.normed:
        norm1 = [layer.norm1.weight, layer.norm1.bias]
        norm2 = [layer.norm2.weight, layer.norm2.bias]
    if layer.residual:
        first = [layer.mlp.first.weight, layer.mlp.first.bias]
        second = [layer.mlp.second.weight, layer.mlp.second.bias]
    if layer.mixes:
        mix = [exchange.mix.matrix(none), exchange.mixed_linear.weight, exchange.mixed_linear.bias]
    scale = layer.chi_norm.scale if layer.chi_normed else none
    linear = [exchange.linear.weight, exchange.linear.bias]
    return UpdateParameters._make([*norm1, *first, *second, scale, *linear, *mix, *norm2])


def or_none(bias: Tensor | None, none: Tensor) -> Tensor:
    """A bias, or an empty tensor."""
    return none if bias is None else bias
