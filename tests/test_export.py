"""The exported file: complete, equal to the model, and not written when it would be wrong."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch
from small_models import CONFIGS, graph_of, lively

from so3k_md import So3krates, load
from so3k_md.checkpoint import metadata, save_checkpoint
from so3k_md.cli import main
from so3k_md.errors import So3kError
from so3k_md.export import torchscript
from so3k_md.export.contract import EXTRA_FILE, KERNEL_FILES, missing
from so3k_md.kernels.build import load_kernels
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of


@pytest.fixture
def small() -> So3krates:
    return lively(So3krates(CONFIGS["so3krates-2022"], [1, 6, 8], seed=3))


@pytest.fixture
def checkpoint(small, tmp_path):
    path = tmp_path / "small.ckpt"
    save_checkpoint(path, small, small.state_dict(), {})
    return path


def test_file_has_every_word_of_the_contract_and_says_what_it_is(small, tmp_path):
    torchscript.save(small, tmp_path / "m.pt", "a-name")
    extra = {EXTRA_FILE: ""}
    loaded = torch.jit.load(str(tmp_path / "m.pt"), _extra_files=extra)
    assert missing(loaded) == []
    facts = metadata(loaded)
    assert json.loads(extra[EXTRA_FILE]) == facts
    assert facts["name"] == "a-name"
    assert facts["elements"] == needs_of(loaded).elements == [1, 6, 8]
    assert facts["units"] == {"length": "Angstrom", "energy": "eV"}
    assert facts["dtype"] == "float32"
    assert facts["config"]["nonlocal"] == "none"
    assert facts["energy_reference_ev"] == {"1": -10.0, "6": -60.0, "8": -80.0}
    assert facts["weights_sha256"] == torchscript.weights_hash(loaded)


def test_checkpoint_export_and_another_precision_agree(small, checkpoint, cluster, tmp_path):
    torchscript.save(small, tmp_path / "m.pt", "m")
    graph = graph_of(*cluster, small.needs.cutoff)
    expected = evaluate(set_dtype(small, torch.float64), graph, 1)
    for path in (checkpoint, tmp_path / "m.pt"):
        got = evaluate(load(path, dtype="float64"), graph, 1)
        assert torch.allclose(got.outputs.energies, expected.outputs.energies, rtol=0, atol=1e-10)
        assert torch.allclose(got.forces, expected.forces, rtol=0, atol=1e-10)
        assert next(load(path).parameters()).dtype == torch.float32


def test_file_runs_without_our_source(small, cluster, tmp_path):
    torchscript.save(set_dtype(small, torch.float64), tmp_path / "m.pt", "m")
    graph = graph_of(*cluster, small.needs.cutoff)
    torch.save((*graph[:-1], tuple(graph.long)), tmp_path / "graph.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['so3k_md'] = None\n"
        f"g = torch.load({str(tmp_path / 'graph.pt')!r})\n"
        "with torch.jit.optimized_execution(False):\n"
        f"    print(repr(torch.jit.load({str(tmp_path / 'm.pt')!r})(g).sum().item()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) == pytest.approx(float(evaluate(small, graph, 1).energy), rel=1e-12)


def test_frozen_file_has_the_same_forces(small, cluster, tmp_path):
    torchscript.save(set_dtype(small, torch.float64), tmp_path / "m.pt", "m")
    graph = graph_of(*cluster, small.needs.cutoff)
    frozen = torch.jit.freeze(torch.jit.load(str(tmp_path / "m.pt")).eval(), preserved_attrs=["gradient"])
    a, b = evaluate(small, graph, 1), evaluate(frozen, graph, 1)
    assert torch.allclose(a.forces, b.forces, rtol=0, atol=1e-12)


def test_broken_weights_are_refused_and_nothing_is_written(small, tmp_path):
    with torch.no_grad():
        small.representation.layers[0].interaction.linear.weight[0, 0] = float("nan")
    with pytest.raises(So3kError, match="not finite"):
        torchscript.save(small, tmp_path / "m.pt", "m")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_gradient_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "so3k_md.model.forces.pair_forces", lambda g, idx_i, idx_j, n: torch.ones(n, 3).double()
    )
    with pytest.raises(So3kError, match="export refused: the check 'finite differences'"):
        torchscript.save(small, tmp_path / "m.pt", "m")
    assert list(tmp_path.iterdir()) == []


def test_command_line_exports_and_describes(checkpoint, tmp_path, capsys):
    output = tmp_path / "out.pt"
    assert main(["export", str(checkpoint), "-o", str(output), "--dtype", "float64"]) == 0
    assert "finite differences" in capsys.readouterr().out
    assert main(["info", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["dtype"] == "float64"
    assert facts["parameters"] == sum(p.numel() for p in load(checkpoint).parameters())
    assert main(["info", str(checkpoint)]) == 0
    assert "checkpoint" in capsys.readouterr().out
    before = output.read_bytes()
    assert main(["export", str(checkpoint), "-o", str(output)]) == 2
    assert output.read_bytes() == before
    assert "--overwrite" in capsys.readouterr().err


def test_an_exported_file_can_be_exported_again(checkpoint, tmp_path, capsys):
    """A model of which only the file is left gets another precision, or the form with kernels."""
    names = [str(tmp_path / name) for name in ("a.pt", "b.pt", "c.pt")]
    assert main(["export", str(checkpoint), "-o", names[0], "--dtype", "float64", "--kernels", "off"]) == 0
    assert main(["export", names[0], "-o", names[1], "--name", "again"]) == 0
    assert main(["export", names[0], "-o", names[2], "--dtype", "float32"]) == 0
    facts = []
    for name in names:
        capsys.readouterr()
        assert main(["info", name, "--json"]) == 0
        facts.append(json.loads(capsys.readouterr().out))
    assert facts[1]["weights_sha256"] == facts[0]["weights_sha256"]
    assert [fact["name"] for fact in facts] == ["a", "again", "c"]
    assert facts[2]["dtype"] == "float32"
    assert facts[2]["config"] == facts[0]["config"]


@pytest.mark.skipif(not load_kernels(), reason="the kernels are not built")
def test_the_form_with_kernels_can_be_left_out(checkpoint, tmp_path):
    held = []
    for kernels in ("auto", "off"):
        path = tmp_path / f"{kernels}.pt"
        assert main(["export", str(checkpoint), "-o", str(path), "--kernels", kernels]) == 0
        extra = dict.fromkeys(KERNEL_FILES.values(), "")
        torch.jit.load(path, _extra_files=extra)
        held.append([bool(code) for code in extra.values()])
    assert held == [[True, True], [False, False]]


def test_a_file_written_without_kernels_has_their_form_too(checkpoint, tmp_path):
    """On a machine without a compiler; another process, because torch keeps operators that it knows."""
    path = tmp_path / "m.pt"
    program = (
        "import sys; from so3k_md.kernels import build; build.find_kernels = lambda: None; "
        "from so3k_md.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "export", str(checkpoint), "-o", str(path)]
    assert subprocess.run(command, check=False, capture_output=True, text=True).returncode == 0
    names = zipfile.ZipFile(path).namelist()
    assert all(any(name.endswith(f"/extra/{file}") for name in names) for file in KERNEL_FILES.values())
