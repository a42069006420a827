"""Models of the SO3LR family arrive bit for bit, complete, and only if our model can express them."""

import importlib.metadata
import json
import subprocess
import sys
import zipfile

import pytest
import torch
from foreign_models import DEGREES, SHIFT, TRAINED, F, H, jax_files, torch_file, torch_weights
from torch.nn import functional

from so3k_md import ModelConfig, load
from so3k_md.checkpoint import metadata
from so3k_md.cli import main
from so3k_md.config import to_mapping
from so3k_md.convert.rounding import round_like_peer
from so3k_md.convert.so3lr import build, convert
from so3k_md.convert.sources import INSIDE, PACKAGE
from so3k_md.errors import So3kError
from so3k_md.model.weights import file_name, file_weights
from so3k_md.needs import needs_of


@pytest.fixture
def write(tmp_path):
    """Write a file of so3krates-torch and give its name."""

    def write(settings=None, weights=None, name="SO3LR") -> str:
        path = tmp_path / "some.model"
        path.write_bytes(torch_file(settings, weights, name))
        return str(path)

    return write


@pytest.fixture
def jax(tmp_path):
    """Write the two files of mlff and give the name of the pickle."""
    params, hyperparameters = jax_files()
    (tmp_path / "params.pkl").write_bytes(params)
    (tmp_path / "hyperparameters.json").write_bytes(hyperparameters)
    return tmp_path / "params.pkl"


def refusal(*arguments) -> str:
    with pytest.raises(So3kError) as refused:
        build(convert(*arguments))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_arrive_bit_for_bit(write):
    theirs, ours = torch_weights(), convert(write()).weights
    table = theirs["inv_feature_embedding.embedding.weight"]
    assert all(torch.equal(ours["embedding.weight"][z], table[:, z - 1]) for z in (1, 8, 118))
    assert not ours["embedding.weight"][0].any()
    charge = theirs["charge_embedding.Wq.weight"]
    assert torch.equal(ours["charge_embedding.query"][17], charge[:, 16])
    assert torch.equal(ours["spin_embedding.mlp.second.weight"], theirs["spin_embedding.mlp.3.weight"].t())
    net = theirs["euclidean_transformers.1.filter_net_ev.mlp_rbf.mlp_rbf_layer_1.0.weight"]
    assert torch.equal(ours["layers.1.geometric_filter.radial.out.weight"], net.t())
    x = torch.randn(3, F)
    for part in ("query", "key"):
        theirs_w = theirs[f"euclidean_transformers.0.euclidean_attention_block.W_{part[0]}_inv"]
        expected = torch.einsum("nhd,hde->nhe", x.view(3, H, F // H), theirs_w).reshape(3, F)
        layer = build(convert(write())).representation.layers[0]
        torch.testing.assert_close(getattr(layer.feature_attention.attention, part)(x), expected)
    for name in ("charge_head.table", "ratio_head.shift", "ratio_head.query"):
        assert len(ours[name]) == 119
        assert not ours[name][100:].any()
    assert torch.equal(ours["ratio_head.query"][:100], theirs["hirshfeld_output_block.q_embedding.weight"])
    assert all(tensor.is_contiguous() for tensor in ours.values())


def test_constants_of_the_repulsion_are_positive_and_normalised(write):
    theirs, ours = torch_weights(), convert(write()).weights

    def positive(name):
        return functional.softplus(theirs[f"zbl_repulsion.{name}_raw"].double())[0]

    c = torch.stack([positive(f"c{k}") for k in range(1, 5)])
    torch.testing.assert_close(ours["repulsion.c"], c / c.sum(), rtol=1e-15, atol=0)
    torch.testing.assert_close(ours["repulsion.a"][2], positive("a3"), rtol=1e-15, atol=0)
    assert ours["repulsion.p"] == positive("p")
    assert ours["repulsion.d"] == positive("d")


def test_both_programs_give_the_same_model(write, jax):
    from_torch, from_jax = convert(write()), convert(str(jax))
    assert from_torch.config == from_jax.config
    assert from_torch.elements == from_jax.elements == TRAINED
    assert list(from_torch.weights) == list(from_jax.weights)
    different = [name for name, x in from_torch.weights.items() if not torch.equal(x, from_jax.weights[name])]
    assert different == []
    assert from_torch.metadata["energy_shift_ev_per_atom"] == float(torch.tensor(SHIFT))
    assert from_jax.metadata["energy_shift_ev_per_atom"] == SHIFT


def test_the_model_takes_every_weight(write):
    imported = convert(write())
    model = round_like_peer(build(imported, torch.float64))
    assert model.config.degrees == tuple(DEGREES)
    assert {file_name(name) for name, _ in model.named_parameters()} <= set(imported.weights)
    assert set(imported.weights) <= set(file_weights(model))
    assert {"repulsion.a", "repulsion.c", "head.scale"} <= set(imported.weights)
    for name, tensor in file_weights(model).items():
        if name in imported.weights:
            assert torch.equal(tensor, imported.weights[name].double()), name
    assert model.representation.embedding.weight.dtype == torch.float64
    assert needs_of(model).elements == TRAINED


def test_nothing_of_the_other_program_is_imported(write):
    program = (
        "import sys; from so3k_md.convert.so3lr import convert; convert(sys.argv[1]); "
        "print([name for name in sys.modules if name.startswith('so3krates')])"
    )
    # a process of its own, as benchmarks import it
    words = [sys.executable, "-c", program, write()]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_wheel_is_opened(write, tmp_path):
    wheel = tmp_path / "so3krates_torch-0.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write(), INSIDE)
    direct, packed = convert(write()), convert(str(wheel))
    assert packed.metadata["source_sha256"] == direct.metadata["source_sha256"]
    assert torch.equal(packed.weights["embedding.weight"], direct.weights["embedding.weight"])
    wheel.write_bytes(wheel.read_bytes()[:500])
    assert "damaged" in refusal(str(wheel))


def test_shifts_that_differ_stay_in_the_energy(write):
    weights = torch_weights()
    shifts = torch.arange(118.0)
    weights["atomic_energy_output_block.energy_shifts"] = shifts
    imported = convert(write(weights=weights))
    assert imported.metadata["energy_shift_ev_per_atom"] == 0.0
    assert torch.equal(imported.weights["head.shift"][1:], shifts.double())
    assert not convert(write()).weights["head.shift"].any()


def test_elements_are_those_that_were_trained(write):
    weights = torch_weights()
    weights["atomic_energy_output_block.energy_scales.weight"] = torch.ones(1, 118)
    assert "--elements" in refusal(write(weights=weights))
    assert convert(write(weights=weights), [8, 1]).elements == [1, 8]
    assert convert(write(), [6]).elements == [6]
    assert "[1, 6, 8] only" in refusal(write(), [1, 11])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("radial_basis_fn", "gaussian"),
        ("cutoff_fn", "exponential"),
        ("activation_fn", "gelu"),
        ("qk_non_linearity", "silu"),
        ("message_normalization", "softmax"),
        ("residual_mlp_2", True),
        ("layer_normalization_2", False),
        ("dispersion_energy_bool", False),
        ("trainable_rbf", True),
        ("electrostatic_energy_scale", 3.0),
        ("dispersion_energy_scale", 1.0),
        ("use_pme", True),
        ("final_mlp_layers", 3),
        ("num_layers", None),
        ("rms_norm", True),
        ("repulsion", "nhl"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(write, setting, value):
    message = refusal(write({setting: value}))
    assert message.startswith("some.model ")
    assert setting in message


def test_energies_that_are_switched_off_stay_out(write):
    off = {"electrostatic_energy_bool": False, "dispersion_energy_bool": False, "zbl_repulsion_bool": False}
    imported = convert(write(off | {"use_charge_embed": True}))
    assert not {name.split(".")[0] for name in imported.weights} & {"charge_head", "ratio_head", "repulsion"}
    assert not imported.config["zbl"]


def changed(name: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    weights = torch_weights() | {name: value}
    return {key: tensor for key, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("charge_embedding.Wk", None, "no tensor charge_embedding.Wk"),
        ("euclidean_transformers.0.W_lora", torch.ones(2), "tensor euclidean_transformers.0.W_lora, which"),
        ("charge_embedding.Wk", torch.ones(2, F - 1), "for charge_embedding.key"),
        ("inv_feature_embedding.embedding.weight", torch.ones(F, 90), "for embedding.weight"),
        ("inv_feature_embedding.embedding.weight", torch.ones(F, 118, 1), "for embedding.weight"),
        ("spin_embedding.Wv", torch.full((2, F), torch.nan), "not finite"),
        (
            "euclidean_transformers.0.euclidean_attention_block.filter_net_ev.mlp_ev.0.bias",
            torch.ones(F // 4),
            "filter_net_ev.mlp_ev.0.bias, which",
        ),
    ],
)
def test_incomplete_and_unknown_tensors_are_refused(write, name, value, words):
    assert words in refusal(write(weights=changed(name, value)))


def test_other_objects_are_refused(write, tmp_path):
    assert "MultiHeadSO3LR" in refusal(write(name="MultiHeadSO3LR"))
    torch.save(torch_weights(), tmp_path / "state.pt")
    assert "whole model" in refusal(str(tmp_path / "state.pt"))
    assert "no file" in refusal(str(tmp_path / "nothing.model"))


def test_mlff_needs_its_hyperparameters(jax):
    beside = jax.with_name("hyperparameters.json")
    document = json.loads(beside.read_text())
    beside.write_text(json.dumps({"model": document["model"]}))
    assert "not one of mlff" in refusal(str(jax))
    beside.write_text("{")
    assert "not one of mlff" in refusal(str(jax))
    beside.unlink()
    assert "hyperparameters.json in the same folder" in refusal(str(jax))


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    found = importlib.metadata.distribution

    def missing(name):
        if name == PACKAGE:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert main(["import", "so3lr", "-o", str(tmp_path / "x.pt")]) == 2
    assert "pip install 'so3k-md[so3lr]'" in capsys.readouterr().err


def test_the_command_line_imports_a_model_of_the_family(write, tmp_path, capsys):
    path, output = write(), tmp_path / "small.pt"
    assert main(["import", "so3lr", "--source", path, "-o", str(output)]) == 2
    assert "not contain the published weights" in capsys.readouterr().err
    assert main(["import", path, "-o", str(output), "--rounding", "peer", "--dtype", "float64"]) == 0
    out = capsys.readouterr().out
    assert "10.1021/jacs.5c09558" in out
    assert "6539 (2024)" in out
    assert "licence: not stated" in out
    facts = metadata(load(output))
    assert facts["elements"] == TRAINED
    assert facts["dtype"] == "float64"
    assert facts["rounding"] == "peer"
    assert facts["source"] == "some.model"


def test_the_published_weights():
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    imported = convert("wheel")
    assert imported.metadata["weights_as_published"]
    assert "Thorben Frank" in imported.metadata["licence"]
    assert imported.elements == [1, 6, 7, 8, 9, 15, 16, 17]
    assert imported.metadata["energy_shift_ev_per_atom"] == float(torch.tensor(SHIFT))
    model = build(imported)
    assert to_mapping(model.config) == to_mapping(ModelConfig.preset("so3lr"))
    assert not model.energies.head.shift.any()


@pytest.mark.parametrize("published", [True, False])
def test_the_model_knows_its_shift_and_its_spins(write, published):
    """Engines tell of the shift that is left out; open shells are refused where none were trained."""
    imported = convert(write())
    model = build(imported._replace(metadata=imported.metadata | {"weights_as_published": published}))
    assert needs_of(model).energy_shift == float(torch.tensor(SHIFT))
    assert needs_of(model).singlets_only is published


def test_weights_in_float64_keep_their_digits(write):
    imported = convert(write())
    exact = {name: tensor.double() * (1 + 1e-12) for name, tensor in imported.weights.items()}
    model = build(imported._replace(weights=exact))
    assert torch.equal(model.representation.embedding.weight, exact["embedding.weight"])
    assert build(imported).representation.embedding.weight.dtype == torch.float32
