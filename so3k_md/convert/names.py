"""Names and layouts of the same weights in so3k-md, in so3krates-torch and in mlff (JAX)."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Rows of tables by atomic number in so3k-md, 0 to 118; row 0 is not used.
N_SPECIES = 119


class Layout(NamedTuple):
    """Conversions of a tensor from the layouts of the two other programs to that of so3k-md."""

    torch: Callable[[Tensor], Tensor]
    jax: Callable[[Tensor], Tensor]


class Entry(NamedTuple):
    """One tensor: its names in so3k-md, in so3krates-torch and in mlff, and the conversions of its layout."""

    ours: str
    torch: str
    jax: str
    layout: Layout


def _same(x: Tensor) -> Tensor:
    return x


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).contiguous()


def _rows_from_hydrogen(x: Tensor) -> Tensor:
    """One-hot weights (n, 118), or a list (118,), as rows that start with atomic number 0."""
    rows = x.t() if x.dim() == 2 else x
    return torch.cat([torch.zeros_like(rows[:1]), rows])


def _rows_from_zero(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:1]), x[1:]])


def _padded(x: Tensor) -> Tensor:
    """A table by atomic number, from 0, with rows of zeros up to 118; a single column as a list."""
    rows = torch.cat([x, x.new_zeros(max(0, N_SPECIES - len(x)), x.shape[1])])
    return rows[:, 0] if x.shape[1] == 1 else rows


PLAIN = Layout(_same, _same)
MATRIX = Layout(_transposed, _same)
HEADS = Layout(_same, _transposed)
ELEMENTS = Layout(_rows_from_hydrogen, _rows_from_zero)
SCALES = Layout(lambda x: _rows_from_hydrogen(x)[:, 0], _rows_from_zero)
TABLE = Layout(_padded, _padded)


def entries(settings: dict[str, Any]) -> Iterator[Entry]:
    """All tensors of a model with the given settings, whose keys are those of so3krates-torch."""
    yield Entry(
        "embedding.weight",
        "inv_feature_embedding.embedding.weight",
        "feature_embeddings_0/Embed_0/embedding",
        ELEMENTS,
    )
    embeddings = [name for name in ("charge", "spin") if settings[f"use_{name}_embed"]]
    for position, name in enumerate(embeddings, start=1):
        yield from _total(name, position)
    for layer in range(settings["num_layers"]):
        yield from _layer(layer, settings)
    yield from _energy(settings)
    if settings.get("zbl_repulsion_bool"):
        for name in (*(f"{kind}{k}" for kind in "ac" for k in range(1, 5)), "p", "d"):
            places = f"zbl_repulsion.{name}_raw", f"observables_0/zbl_repulsion/{name}"
            yield Entry(f"repulsion.{name}", *places, PLAIN)
    if settings.get("electrostatic_energy_bool"):
        yield from _charges()
    if settings.get("dispersion_energy_bool"):
        yield from _ratios()


def _dense(ours: str, torch_name: str, jax: str) -> Iterator[Entry]:
    yield Entry(f"{ours}.weight", f"{torch_name}.weight", f"{jax}/kernel", MATRIX)
    yield Entry(f"{ours}.bias", f"{torch_name}.bias", f"{jax}/bias", PLAIN)


def _total(name: str, position: int) -> Iterator[Entry]:
    ours, theirs = f"{name}_embedding", f"{name}_embedding"
    jax = f"feature_embeddings_{position}/ChargeSpinEmbedSparse_0"
    yield Entry(f"{ours}.query", f"{theirs}.Wq.weight", f"{jax}/Embed_0/embedding", ELEMENTS)
    yield Entry(f"{ours}.key", f"{theirs}.Wk", f"{jax}/Embed_1/embedding", PLAIN)
    yield Entry(f"{ours}.value", f"{theirs}.Wv", f"{jax}/Embed_2/embedding", PLAIN)
    for k, place in enumerate(("first", "second")):
        parts = f"{theirs}.mlp.{2 * k + 1}.weight", f"{jax}/Residual_0/layers_{k}/kernel"
        yield Entry(f"{ours}.mlp.{place}.weight", *parts, MATRIX)


def _layer(k: int, settings: dict[str, Any]) -> Iterator[Entry]:
    ours, theirs, jax = f"layers.{k}", f"euclidean_transformers.{k}", f"layers_{k}"
    for number, (kind, short) in enumerate((("feature", "inv"), ("geometric", "ev")), start=1):
        for part, letters in (("radial", "rbf"), ("spherical", "ev")):
            place = f"{ours}.{kind}_filter.{part}"
            net = f"{theirs}.filter_net_{short}.mlp_{letters}"
            block = f"{jax}/attention_block/{part}_filter{number}_layer"
            yield from _dense(f"{place}.hidden", f"{net}.0", f"{block}_1")
            yield from _dense(f"{place}.out", f"{net}.mlp_{letters}_layer_1.0", f"{block}_2")
        for part in ("query", "key", "value")[: 3 if kind == "feature" else 2]:
            inner = "" if part == "value" else "attention."
            yield Entry(
                f"{ours}.{kind}_attention.{inner}{part}.weight",
                f"{theirs}.euclidean_attention_block.W_{part[0]}_{short}",
                f"{jax}/attention_block/W{part[0]}{number}",
                HEADS,
            )
    linear = f"{theirs}.interaction_block.linear_layer"
    yield from _dense(f"{ours}.interaction.linear", linear, f"{jax}/exchange_block/mlp_layer_2")
    if settings["layer_normalization_1"]:
        for number in (1, 2):
            norm, other = f"{theirs}.layer_norm_inv_{number}", f"{jax}/layer_normalization_{number}"
            yield Entry(f"{ours}.norm{number}.weight", f"{norm}.weight", f"{other}/scale", PLAIN)
            yield Entry(f"{ours}.norm{number}.bias", f"{norm}.bias", f"{other}/bias", PLAIN)
    if settings["residual_mlp_1"]:
        yield from _dense(f"{ours}.mlp.first", f"{theirs}.mlp_1.1", f"{jax}/res_mlp_1_layer_1")
        yield from _dense(f"{ours}.mlp.second", f"{theirs}.mlp_1.3", f"{jax}/res_mlp_1_layer_2")


def _energy(settings: dict[str, Any]) -> Iterator[Entry]:
    theirs, jax = "atomic_energy_output_block", "observables_0"
    yield from _dense("head.mlp.hidden", f"{theirs}.layers.0", f"{jax}/energy_dense_regression")
    yield from _dense("head.mlp.out", f"{theirs}.final_layer", f"{jax}/energy_dense_final")
    yield Entry("head.scale", f"{theirs}.energy_scales.weight", f"{jax}/atomic_scales", SCALES)
    yield Entry("head.shift", f"{theirs}.energy_shifts", f"{jax}/energy_offset", ELEMENTS)


def _charges() -> Iterator[Entry]:
    theirs = "partial_charges_output_block"
    jax = "observables_0/electrostatic_energy/partial_charges"
    nets = f"{theirs}.transform_inv_features", f"{jax}/charge_dense"
    yield Entry("charge_head.table", f"{theirs}.atomic_embedding.weight", f"{jax}/Embed_0/embedding", TABLE)
    yield from _dense("charge_head.mlp.hidden", f"{nets[0]}.0", f"{nets[1]}_regression_vec")
    yield from _dense("charge_head.mlp.out", f"{nets[0]}.2", f"{nets[1]}_final_vec")


def _ratios() -> Iterator[Entry]:
    theirs, jax = "hirshfeld_output_block", "observables_2"
    nets = f"{theirs}.transform_features", f"{jax}/hirshfeld_ratios_dense"
    yield Entry("ratio_head.shift", f"{theirs}.v_shift_embedding.weight", f"{jax}/Embed_0/embedding", TABLE)
    yield Entry("ratio_head.query", f"{theirs}.q_embedding.weight", f"{jax}/Embed_1/embedding", TABLE)
    yield from _dense("ratio_head.mlp.hidden", f"{nets[0]}.0", f"{nets[1]}_regression")
    yield from _dense("ratio_head.mlp.out", f"{nets[0]}.2", f"{nets[1]}_final")
