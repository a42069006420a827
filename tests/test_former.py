"""Files of former versions: exported files of formats 5 and 6, and the checkpoint of their time.

tests/reference/format5.pt and .ckpt were written by so3k-md at 8f758a8, format6.pt from that checkpoint at
d8cf6d6: random weights of one layer, sphc, charge and spin embedding and ZBL, float32. The numbers below are
their own.
"""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import CONFIGS, REFERENCE

from so3k_md import So3krates, load
from so3k_md.checkpoint import metadata
from so3k_md.cli import main
from so3k_md.errors import So3kError
from so3k_md.model import weights_hash
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph
from so3k_md.train.trainer import _restore, parameter_names

WEIGHTS = "372bdd45f2a228872b2fa64173f511e8e70eb0a85cb01d3494e8555bccebdd3f"
ENERGY = 3.506387382745743  # eV
FORCE = [-0.09099164325743914, -0.011520889587700367, 0.060913062654435635]  # of atom 2, eV/Å


def check_same(model: torch.nn.Module) -> None:
    r = np.arange(12).reshape(4, 3) % 5 * 0.9 + 0.1 * np.arange(4)[:, None]
    graph = build_graph(np.array([6, 1, 8, 1]), r, None, np.zeros(3, bool), 4.0)
    found = evaluate(model, graph, 1)
    assert found.energy.item() == pytest.approx(ENERGY, abs=1e-7)
    assert found.forces[2].tolist() == pytest.approx(FORCE, abs=1e-7)
    assert weights_hash(model) == WEIGHTS
    assert needs_of(model).energy_shift == -2.5


@pytest.mark.parametrize("version", [5, 6])
def test_an_exported_file_is_refused_with_the_remedy_and_written_anew(version, tmp_path):
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    shutil.copy(REFERENCE / f"format{version}.pt", old)
    with pytest.raises(So3kError, match=rf"has format {version}, .* so3k-md export .*old.pt -o NEW.pt"):
        load(old)
    assert main(["export", str(old), "-o", str(new), "--kernels", "off"]) == 0
    model = load(new)
    check_same(model)
    assert metadata(model)["weights_sha256"] == WEIGHTS


def test_damage_of_it_is_noticed(tmp_path, capsys):
    data = bytearray((REFERENCE / "format5.pt").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "old.pt").write_bytes(data)
    assert main(["export", str(tmp_path / "old.pt"), "-o", str(tmp_path / "new.pt")]) == 2
    assert "old.pt is damaged" in capsys.readouterr().err
    assert not (tmp_path / "new.pt").exists()


def test_a_checkpoint_is_read_as_it_is():
    check_same(load(REFERENCE / "format5.ckpt"))


def test_settings_that_are_no_longer_of_a_model_are_read_by_their_one_value(tmp_path):
    document = torch.load(REFERENCE / "format5.ckpt", weights_only=True)
    assert document["config"]["rounding"] == "exact"
    document["config"]["rounding"] = "peer"
    document["format"] = "so3k-md checkpoint 1"  # which needs no seal
    document |= document.pop("facts")
    torch.save(document, tmp_path / "peer.ckpt")
    with pytest.raises(So3kError, match=r"model.rounding = 'peer' is no longer a setting: .*--rounding peer"):
        load(tmp_path / "peer.ckpt")


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    """Adam's moments have no names: in another order they would be those of other weights."""
    model = So3krates(CONFIGS["so3krates-2022"], [1, 6])
    run = SimpleNamespace(model=model, folder=tmp_path)
    state = {"training": {"parameters": parameter_names(model)[::-1]}, "weights": {}}
    with pytest.raises(So3kError, match="last.ckpt was written by a version of so3k-md with another order"):
        _restore(run, state)
