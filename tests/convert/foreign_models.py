"""Small models in the layouts of so3krates-torch and mlff, with random weights of their own.

Names and shapes are written down here once more, from the published files, so that the converter's own tables
are checked against them.
"""

import contextlib
import io
import json
import pickle
import sys
import types

import numpy as np
import torch
from torch import nn

F, H, K, LAYERS, DEGREES = 8, 2, 5, 2, [1, 2]
TRAINED = [1, 6, 8]
SHIFT = -163.6181213551537

SETTINGS = {
    "num_features": F,
    "num_heads": H,
    "num_layers": LAYERS,
    "degrees": DEGREES,
    "num_radial_basis_fn": K,
    "radial_basis_fn": "bernstein",
    "cutoff_fn": "phys",
    "activation_fn": "silu",
    "energy_activation_fn": "silu",
    "qk_non_linearity": "identity",
    "message_normalization": "avg_num_neighbors",
    "layer_normalization_1": True,
    "layer_normalization_2": True,
    "residual_mlp_1": True,
    "residual_mlp_2": False,
    "use_charge_embed": True,
    "use_spin_embed": True,
    "zbl_repulsion_bool": True,
    "electrostatic_energy_bool": True,
    "electrostatic_energy_scale": 4.0,
    "dispersion_energy_bool": True,
    "dispersion_energy_scale": 1.2,
    "dispersion_energy_cutoff_lr_damping": None,
    "energy_regression_dim": F,
    "energy_learn_atomic_type_scales": True,
    "energy_learn_atomic_type_shifts": True,
    "num_features_head": F // H,
    "input_convention": "positions",
}


def torch_shapes() -> dict[str, tuple[int, ...]]:
    """Trained tensors of so3krates-torch."""
    shapes: dict[str, tuple[int, ...]] = {"inv_feature_embedding.embedding.weight": (F, 118)}

    def dense(name: str, n_in: int, n_out: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    for total in ("charge_embedding", "spin_embedding"):
        shapes |= {f"{total}.Wq.weight": (F, 118), f"{total}.Wk": (2, F), f"{total}.Wv": (2, F)}
        shapes |= {f"{total}.mlp.{k}.weight": (F, F) for k in (1, 3)}
    for layer in range(LAYERS):
        at = f"euclidean_transformers.{layer}"
        for kind in ("inv", "ev"):
            dense(f"{at}.filter_net_{kind}.mlp_rbf.0", K, F)
            dense(f"{at}.filter_net_{kind}.mlp_rbf.mlp_rbf_layer_1.0", F, F)
            dense(f"{at}.filter_net_{kind}.mlp_ev.0", len(DEGREES), F // 4)
            dense(f"{at}.filter_net_{kind}.mlp_ev.mlp_ev_layer_1.0", F // 4, F)
        for name in ("W_q_inv", "W_k_inv", "W_v_inv"):
            shapes[f"{at}.euclidean_attention_block.{name}"] = (H, F // H, F // H)
        for name in ("W_q_ev", "W_k_ev"):
            n = len(DEGREES)
            shapes[f"{at}.euclidean_attention_block.{name}"] = (n, F // n, F // n)
        dense(f"{at}.interaction_block.linear_layer", F + len(DEGREES), F + len(DEGREES))
        for k in (1, 2):
            shapes |= {f"{at}.layer_norm_inv_{k}.{part}": (F,) for part in ("weight", "bias")}
        dense(f"{at}.mlp_1.1", F, F)
        dense(f"{at}.mlp_1.3", F, F)
    dense("atomic_energy_output_block.layers.0", F, F)
    dense("atomic_energy_output_block.final_layer", F, 1)
    shapes["atomic_energy_output_block.energy_scales.weight"] = (1, 118)
    shapes["atomic_energy_output_block.energy_shifts"] = (118,)
    shapes |= {f"zbl_repulsion.{name}_raw": (1,) for name in ("a1", "a2", "a3", "a4")}
    shapes |= {f"zbl_repulsion.{name}_raw": (1,) for name in ("c1", "c2", "c3", "c4", "p", "d")}
    shapes["partial_charges_output_block.atomic_embedding.weight"] = (100, 1)
    dense("partial_charges_output_block.transform_inv_features.0", F, F)
    dense("partial_charges_output_block.transform_inv_features.2", F, 1)
    shapes["hirshfeld_output_block.v_shift_embedding.weight"] = (100, 1)
    shapes["hirshfeld_output_block.q_embedding.weight"] = (100, F // 2)
    dense("hirshfeld_output_block.transform_features.0", F, F // 2)
    dense("hirshfeld_output_block.transform_features.2", F // 2, F // 2)
    return shapes


def torch_weights(seed: int = 1) -> dict[str, torch.Tensor]:
    """Random weights; scales differ from one for the trained elements alone, all shifts are the same."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in torch_shapes().items()}
    scales = torch.ones(1, 118)
    scales[0, torch.tensor(TRAINED) - 1] = torch.tensor([0.75, 0.82, 1.1])
    weights["atomic_energy_output_block.energy_scales.weight"] = scales
    weights["atomic_energy_output_block.energy_shifts"] = torch.full((118,), SHIFT)
    return weights


@contextlib.contextmanager
def peer_class(name: str):
    """A class by the name of so3krates-torch's, there only as long as something is pickled."""
    modules = ["so3krates_torch", "so3krates_torch.modules", "so3krates_torch.modules.models"]
    kept = {module: sys.modules.get(module) for module in modules}
    sys.modules.update({module: types.ModuleType(module) for module in modules})
    made = type(name, (nn.Module,), {"__module__": modules[-1]})
    setattr(sys.modules[modules[-1]], name, made)
    try:
        yield made
    finally:
        for module, former in kept.items():
            del sys.modules[module]
            if former is not None:
                sys.modules[module] = former


def torch_file(settings: dict | None = None, weights: dict | None = None, name: str = "SO3LR") -> bytes:
    """What torch.save writes of a so3krates-torch model, with constants and filter nets mentioned twice."""
    weights = torch_weights() if weights is None else dict(weights)
    for key in [key for key in weights if ".filter_net_" in key and "attention" not in key]:
        weights.setdefault(
            key.replace(".filter_net_", ".euclidean_attention_block.filter_net_"), weights[key]
        )
    constants = {
        "radial_embedding.radial_basis_fn.gamma": torch.tensor(0.9448630629184640),
        "euclidean_transformers.0.interaction_block.degree_repeats": torch.tensor([3, 5]),
    }
    with peer_class(name) as made:
        model = made()
        for key, value in (constants | weights).items():
            *path, last = key.split(".")
            module = model
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            if key in constants:
                module.register_buffer(last, value)
            else:
                module.register_parameter(last, nn.Parameter(value))
        facts = SETTINGS | {"r_max": 4.5, "r_max_lr": None, "avg_num_neighbors": 13.2, "num_elements": 118}
        for key, value in (facts | {"cutoff_p": 5, "seed": 42, "device": "cpu"} | (settings or {})).items():
            renamed = key in ("cutoff_fn", "activation_fn", "energy_activation_fn")
            setattr(model, f"{key}_name" if renamed else key, value)
        model.activation_fn = nn.SiLU
        file = io.BytesIO()
        torch.save(model, file)
    return file.getvalue()


def jax_name(name: str) -> str:
    """mlff's name of a tensor of so3krates-torch, by the published conversion."""
    kind = name.split(".")[-1]
    dense = {"weight": "kernel", "bias": "bias"}
    if name.startswith("inv_feature_embedding"):
        return "feature_embeddings_0/Embed_0/embedding"
    if name.startswith(("charge_embedding", "spin_embedding")):
        at = f"feature_embeddings_{1 if name.startswith('charge') else 2}/ChargeSpinEmbedSparse_0"
        inner = {"Wq.weight": "Embed_0/embedding", "Wk": "Embed_1/embedding", "Wv": "Embed_2/embedding"}
        inner |= {"mlp.1.weight": "Residual_0/layers_0/kernel", "mlp.3.weight": "Residual_0/layers_1/kernel"}
        return f"{at}/{inner[name.split('.', 1)[1]]}"
    if name.startswith("euclidean_transformers"):
        _, layer, inner = name.split(".", 2)
        at = f"layers_{layer}"
        number = 2 if "filter_net_ev" in name or name.endswith("_ev") else 1
        if inner.startswith("filter_net"):
            part = "radial" if "mlp_rbf" in inner else "spherical"
            place = 2 if "_layer_1" in inner else 1
            return f"{at}/attention_block/{part}_filter{number}_layer_{place}/{dense[kind]}"
        if inner.startswith("euclidean_attention"):
            return f"{at}/attention_block/W{kind[2]}{number}"
        if inner.startswith("interaction"):
            return f"{at}/exchange_block/mlp_layer_2/{dense[kind]}"
        if inner.startswith("layer_norm"):
            return (
                f"{at}/layer_normalization_{inner.split('.')[0][-1]}/{'scale' if kind == 'weight' else kind}"
            )
        return f"{at}/res_mlp_1_layer_{1 if inner.startswith('mlp_1.1') else 2}/{dense[kind]}"
    energy = "observables_0"
    if name.startswith("zbl"):
        return f"{energy}/zbl_repulsion/{kind.removesuffix('_raw')}"
    at = f"{energy}/electrostatic_energy/partial_charges"
    charges = f"{at}/charge_dense"
    ratios, part = "observables_2/hirshfeld_ratios_dense", dense.get(kind)
    heads = {
        "atomic_energy_output_block.layers.0": f"{energy}/energy_dense_regression/{part}",
        "atomic_energy_output_block.final_layer": f"{energy}/energy_dense_final/{part}",
        "atomic_energy_output_block.energy_scales": f"{energy}/atomic_scales",
        "atomic_energy_output_block": f"{energy}/energy_offset",
        "partial_charges_output_block.atomic_embedding": f"{at}/Embed_0/embedding",
        "partial_charges_output_block.transform_inv_features.0": f"{charges}_regression_vec/{part}",
        "partial_charges_output_block.transform_inv_features.2": f"{charges}_final_vec/{part}",
        "hirshfeld_output_block.v_shift_embedding": "observables_2/Embed_0/embedding",
        "hirshfeld_output_block.q_embedding": "observables_2/Embed_1/embedding",
        "hirshfeld_output_block.transform_features.0": f"{ratios}_regression/{part}",
        "hirshfeld_output_block.transform_features.2": f"{ratios}_final/{part}",
    }
    return heads[name.rsplit(".", 1)[0]]


def jax_array(name: str, value: torch.Tensor) -> np.ndarray:
    """The same numbers in mlff's layout: rows from atomic number 0, kernels (in, out), heads transposed."""
    array = value.numpy()
    if name.endswith("energy_shifts"):
        return np.zeros(119, dtype=np.float32)
    if name.endswith("energy_scales.weight"):
        return np.concatenate([np.float32([7.0]), array[0]])
    if name.endswith((".Wk", ".Wv")) or name.startswith(("partial", "hirshfeld")) and "embedding" in name:
        return array
    if array.shape[-1] == 118:
        return np.concatenate([np.full((1, len(array)), 7.0, np.float32), array.T])
    return np.swapaxes(array, -1, -2) if array.ndim > 1 else array


def jax_files(weights: dict | None = None) -> tuple[bytes, bytes]:
    """params.pkl and hyperparameters.json."""
    tree: dict = {}
    for name, value in (torch_weights() if weights is None else weights).items():
        *path, last = f"params/{jax_name(name)}".split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = jax_array(name, value)
    shifts = {str(z): SHIFT for z in range(119)}
    hidden = {"initialize_ev_to_zeros", "num_elements"}
    model = {key: value for key, value in SETTINGS.items() if key not in hidden}
    document = {
        "model": model | {"cutoff": 4.5, "cutoff_lr": None},
        "data": {"avg_num_neighbors": 13.2, "energy_shifts": shifts},
    }
    return pickle.dumps(tree), json.dumps(document).encode()
