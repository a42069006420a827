"""Training files and overrides that cannot be meant."""

import re
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.feature=12", "model.feature: did you mean features"),
        ("modle.features=12", "did you mean model"),
        ("train.epochs=many", "train.epochs = 'many'.*whole number"),
        ("train.epochs=1.5", "train.epochs = 1.5.*whole number"),
        ("train.epochs=0", "train.epochs = 0.*positive"),
        ("model.parity=7", "model.parity = 7.*true or false"),
        ("model.heads=5", "model.features = 12.*divisible by heads = 5"),
        ("model.degrees=[1,9]", "model.degrees.*0 to 4"),
        ("model.cutoff=-5", "model.cutoff = -5.*positive"),
        (
            "model.radial_basis=bessel",
            "model.radial_basis = 'bessel'.*bernstein",
        ),
        ("model.preset=so3krates-2023", "so3krates-2023.*so3krates-2022"),
        ("loss.forces=-1", "loss.*-1.*negative"),
        ("train.dtype=float16", "float16.*float32"),
        ("train.device=quantum", "quantum.*cpu"),
        ("data.train=absent.xyz", "absent.xyz"),
        ("data.n_train=600", "n_train = 600.*6 frames"),
        ("data.energy_key=U", "water.xyz.*energy key 'U'; keys present"),
        ("data.energy_unit=furlong", "furlong"),
        ("data.groups=molecule", "data.groups = 'molecule'.*auto or all"),
        ("loss.stress=1", "stress"),
        ("model.electrostatics=true", "model.electrostatics and model.dispersion.*both"),
        ("loss.charges=1", "no frame has the charges key 'charges'"),
        ("start.model=absent.pt", "absent.pt"),
        ("start.strategy=lara", "start.strategy = 'lara'.*lora"),
        ("start.replay=water.xyz", "start.model"),
        ("train.epochs", "section.key=value"),
    ],
)
def test_training_file(override, said, refused):
    assert re.search(said, refused(f"train train.yaml {override} -o run"))


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{former}'] * 9)}]\n"
    for former, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [1, 2", "train.yaml is not valid YAML"),
        ("hello", "train.yaml holds no sections: it needs model, data, loss, train"),
        ("model: 3", "section model of train.yaml"),
        ("data: {n_train: 4}", "data.train"),
        ("data: {n_train: 4, n_train: 5}", "the key n_train appears twice"),
        ("data: {train: a.xyz}\ntrain: {epochs: 1}\ntrain: {epochs: 2}", "the key train appears twice"),
        ("data: {train: water.xyz}\ntrain: {learning_rate: .inf}", "train.learning_rate = inf"),
        ("data: {train: water.xyz}\nmodel: {cutoff: -.inf}", "model.cutoff = -inf"),
        ("data: {train: water.xyz, element_energies: {H: .nan}}", "data.element_energies.H = nan"),
        ("data: {train: water.xyz}\ntrain: {seed: 9999999999999999999}", "train.seed = 9999999999999999999"),
        (LAUGHS, "contains more than 10,000 values"),
        ("data: &a {train: *a}", "contains more than 10,000 values"),
    ],
)
def test_malformed_training_file(text, said, refused):
    Path("train.yaml").write_text(text)
    assert re.search(said, refused("train train.yaml -o run"))


def test_missing_training_file(refused):
    assert "absent.yaml" in refused("train absent.yaml -o run")
