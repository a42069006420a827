"""`so3k-md analyze --attention`: what it shows is what the model does, whatever file it is read from."""

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
import pytest
import torch
from ase import Atoms
from nonlocal_models import CELL, NONLOCAL, group_graph, molecules
from reference import sphc
from small_models import layer_of

from so3k_md import So3krates, cli
from so3k_md.analysis.attention import beyond, draw, matrix
from so3k_md.attention import layer_by_layer, nonlocal_attention, read_frame
from so3k_md.checkpoint import save_checkpoint
from so3k_md.data import Frame
from so3k_md.export import torchscript
from so3k_md.model import set_dtype
from so3k_md.nn.sphc_layer import SphcLayer

CONFIG = NONLOCAL["sphc-2022"]
NUMBERS, POSITIONS, GROUP = molecules()
LARGEST = np.flatnonzero(GROUP == 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model in both forms, others that have no such attention, and one structure in several files."""
    path = tmp_path_factory.mktemp("attention")
    local = replace(CONFIG, nonlocal_="none")
    for name, config in {"sphc": CONFIG, "efa": NONLOCAL["efa-lebedev"], "none": local}.items():
        model = set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64)
        save_checkpoint(path / f"{name}.ckpt", model, model.state_dict(), {})
    torchscript.save(sphc_model(), path / "sphc.pt", "small")
    atoms = Atoms(NUMBERS, POSITIONS)
    atoms.arrays["group"] = GROUP
    ase.io.write(path / "open.xyz", [atoms, atoms], format="extxyz")
    wrapped = Atoms(NUMBERS, POSITIONS, cell=CELL, pbc=True)
    ase.io.write(path / "nobody.xyz", wrapped, format="extxyz")
    wrapped.arrays["group"] = GROUP
    wrapped.wrap()
    ase.io.write(path / "wrapped.xyz", wrapped, format="extxyz")
    return path


def sphc_model() -> So3krates:
    return set_dtype(So3krates(CONFIG, [1, 6, 8], seed=3), torch.float64)


def test_it_is_what_the_model_does(monkeypatch):
    """The pairs of every layer are those that `forward` itself asks for."""
    model, graph = sphc_model(), group_graph(NUMBERS, POSITIONS, GROUP, CONFIG.cutoff)
    asked = []
    attended = SphcLayer.attended
    monkeypatch.setattr(SphcLayer, "attended", lambda *rows: asked.append(attended(*rows)) or asked[-1])
    model.forward(graph)
    monkeypatch.setattr(SphcLayer, "attended", attended)
    shown = layer_by_layer(model, graph, np.arange(len(NUMBERS)))
    assert len(shown) == len(asked) == CONFIG.layers
    for mine, theirs in zip(shown, asked, strict=True):
        for field in ("idx_i", "idx_j", "r", "phi", "alpha"):
            assert np.array_equal(getattr(mine, field), getattr(theirs, field).detach().numpy())
        distance = np.linalg.norm(POSITIONS[mine.idx_j] - POSITIONS[mine.idx_i], axis=1)
        assert mine.r == pytest.approx(distance, abs=1e-12)
    assert any(mine.r.max() > CONFIG.cutoff for mine in shown)


def test_the_first_layer_is_the_formula():
    model, graph = sphc_model(), group_graph(NUMBERS, POSITIONS, GROUP, CONFIG.cutoff)
    edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
    chi = model.representation.initial_chi(edges, len(NUMBERS)).detach().numpy()
    settings = CONFIG.kappa, CONFIG.nonlocal_p, CONFIG.norm_eps, CONFIG.temperature
    phi = sphc.neighborhoods(chi, GROUP, *settings)[1]
    layer = layer_by_layer(model, graph, LARGEST)[0]
    table = matrix(layer, layer.phi, len(LARGEST))
    assert np.nan_to_num(table) == pytest.approx(phi[:8, :8], abs=1e-12)


def test_tiles_make_no_difference():
    model, graph = sphc_model(), group_graph(NUMBERS, POSITIONS, GROUP, CONFIG.cutoff)
    whole = layer_by_layer(model, graph, LARGEST)
    for layer in model.representation.layers:
        layer.tile = 9
    groups = model.representation.reach.group_rows(graph.group, graph.group, torch.arange(16))
    assert len(layer_of(model, 0).tiles(groups)) > 3
    for one, other in zip(whole, layer_by_layer(model, graph, LARGEST), strict=True):
        assert np.array_equal(one.idx_j, other.idx_j)
        assert one.phi == pytest.approx(other.phi, abs=1e-12)


def test_same_through_every_file(folder):
    """Checkpoint and exported model; a molecule whole or cut by the walls of its box."""
    reference = nonlocal_attention(f"{folder}/sphc.ckpt", read_frame(f"{folder}/open.xyz", None, 1))
    assert reference.frame == 1
    assert reference.groups == 4
    assert reference.atoms.tolist() == LARGEST.tolist()
    assert reference.degrees == CONFIG.degrees
    exported = nonlocal_attention(f"{folder}/sphc.pt", read_frame(f"{folder}/open.xyz", None, 0))
    assert exported.model == "small"
    for one, other in zip(reference.layers, exported.layers, strict=True):
        assert one.phi == pytest.approx(other.phi, abs=1e-12)
        assert one.alpha == pytest.approx(other.alpha, abs=1e-12)
    wrapped = nonlocal_attention(f"{folder}/sphc.pt", read_frame(f"{folder}/wrapped.xyz", None, 0))
    shown = wrapped.layers[0]
    assert shown.r == pytest.approx(np.linalg.norm(POSITIONS[shown.idx_j] - POSITIONS[shown.idx_i], axis=1))


def test_molecules_of_a_trajectory_are_its_groups(folder):
    """Two waters, 20 Å apart, that the wall cuts: who attends to whom stays inside a molecule."""
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    both = np.concatenate([water, water + 10.0]) % 20.0
    top = mdtraj.Topology()
    chain = top.add_chain()
    for _ in range(2):
        residue = top.add_residue("HOH", chain)
        for symbol in "OHH":
            top.add_atom(symbol, mdtraj.element.get_by_symbol(symbol), residue)
    run = mdtraj.Trajectory(both[None] / 10, top, unitcell_lengths=[[2.0] * 3], unitcell_angles=[[90.0] * 3])
    run.save_pdb(str(folder / "two.pdb"))
    run.save_dcd(str(folder / "two.dcd"))
    frame = read_frame(f"{folder}/two.dcd", f"{folder}/two.pdb", 0)
    found = nonlocal_attention(f"{folder}/sphc.pt", frame)
    alone = Frame(np.array([8, 1, 1]), water, None, np.zeros(3, dtype=bool), None, None, None, 0, "water")
    expected = nonlocal_attention(f"{folder}/sphc.pt", alone)
    assert found.groups == 2
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.phi == pytest.approx(other.phi, abs=1e-4)  # the trajectory is in single precision
        assert one.r == pytest.approx(other.r, abs=1e-4)


def test_picture_and_numbers(folder, capsys):
    words = ["analyze", f"{folder}/open.xyz", "--attention", f"{folder}/sphc.pt", "-o", f"{folder}/out"]
    assert cli.main(words) == 0
    assert "4 groups; the picture shows one of 8 atoms" in capsys.readouterr().out
    assert (folder / "out" / "attention.png").read_bytes().startswith(b"\x89PNG")
    read = json.loads((folder / "out" / "attention.json").read_text())
    found = nonlocal_attention(f"{folder}/sphc.pt", read_frame(f"{folder}/open.xyz", None, 0))
    assert read["names"][0] == f"{'H' if NUMBERS[0] == 1 else 'C' if NUMBERS[0] == 6 else 'O'}0"
    for written, layer in zip(read["layers"], found.layers, strict=True):
        assert written["r"] == layer.r.tolist()
        assert written["share_beyond_cutoff"] == beyond(layer, CONFIG.cutoff)
        assert written["pairs"] == len(layer.r)
    for axes in draw(found).axes:
        assert axes.get_ylabel().endswith((" / 1", "(white: not neighbors)")) or axes.get_ylabel() == "atom"
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0


def test_share_beyond_the_cutoff(folder):
    layer = nonlocal_attention(f"{folder}/sphc.pt", read_frame(f"{folder}/open.xyz", None, 0)).layers[0]
    assert beyond(layer, 0.0) == 1
    assert beyond(layer, 100.0) == 0
    assert 0 < beyond(layer, 3.0) < beyond(layer, 2.0) < 1
    empty = layer._replace(**{name: getattr(layer, name)[:0] for name in layer._fields})
    assert beyond(empty, 3.0) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("open.xyz --attention efa.ckpt", "nonlocal: efa, which has no attention weights"),
        ("open.xyz --attention none.ckpt", "nonlocal: none, which has no attention weights"),
        ("open.xyz --attention nowhere.pt", "no model file nowhere.pt"),
        ("open.xyz --attention sphc.pt --frame 2", "has 2 frames, --frame is 2: choose from 0 to 1"),
        ("open.xyz --attention sphc.pt --frame -1", "--frame is -1"),
        ("open.xyz open.xyz --attention sphc.pt", "takes one file"),
        ("open.xyz --attention sphc.pt --log a.csv", "--log cannot be combined with --attention"),
        ("open.xyz --attention sphc.pt --top open.xyz", "leave out --top"),
        ("nobody.xyz --attention sphc.pt", "is periodic and does not define the groups"),
        ("absent.dcd --attention sphc.pt", "absent.dcd does not exist"),
        ("open.xyz --frame 1", "--frame needs --attention"),
        ("open.xyz --groups all", "--groups needs --attention"),
    ],
)
def test_what_is_refused(words, message, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    assert cli.main(["analyze", *words.split(), "-o", "refused"]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("refused").exists()


def test_an_element_that_the_model_does_not_know(folder):
    frame = read_frame(f"{folder}/open.xyz", None, 0)._replace(numbers=np.full(len(NUMBERS), 7))
    with pytest.raises(cli.So3kError, match="element N is unknown to the model"):
        nonlocal_attention(f"{folder}/sphc.pt", frame)
