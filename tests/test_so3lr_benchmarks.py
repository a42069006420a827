"""The benchmarks of SO3LR: what they ask of a model, and that their tables say what was found."""

from importlib.util import find_spec

import numpy as np
import pytest

from so3k_md import ModelConfig


def test_data_and_structures(module):
    sapt = module("sapt10k")
    dimers = sapt.read(sapt.DATA)
    assert np.bincount([dimer.ions for dimer in dimers]).tolist() == [447, 44, 7]
    assert np.mean([abs(dimer.peer["one charge"] - dimer.reference) for dimer in dimers]) < 1.4
    dimer = next(one for one in dimers if one.charges == (0, 1) or one.charges == (1, 0))
    found = sapt.pieces(dimer)
    part = dimer.atoms.arrays["fragment"]
    assert len(found["a"]) + len(found["b"]) == len(dimer.atoms) == len(found["apart"])
    assert (found["a"].info["charge"], found["b"].info["charge"]) == dimer.charges
    assert found["dimer"].info == found["apart"].info == {"charge": 1}
    assert found["apart, fragments"].info["fragment_charges"] == list(dimer.charges)
    for k, atoms in ((0, found["a"]), (1, found["b"])):
        apart = found["apart"].positions[part == k]
        np.testing.assert_allclose(apart - apart[0], atoms.positions - atoms.positions[0], atol=1e-9)
    middle = [found["apart"].positions[part == k].mean(axis=0) for k in (0, 1)]
    assert np.linalg.norm(middle[1] - middle[0]) == pytest.approx(10_000, abs=20)


def test_cutoff_of_the_other_program(module):
    """Near pairs lose a constant, far pairs all: E_cut − E = −k_e Σ q_i q_j / 1000, −k_e Σ q_i q_j / r."""
    sapt = module("sapt10k")
    q = np.array([0.5, -0.2, 0.7])
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [10_000.0, 0, 0]])
    far = (0.5 * 0.7) / 10_000 + (-0.2 * 0.7) / 9_999
    assert sapt.cut(q, positions) == pytest.approx(-sapt.KE * (0.5 * -0.2 / 1000 + far), rel=1e-12)


def test_table(module):
    sapt = module("sapt10k")
    dimers = sapt.read(sapt.DATA)
    ours = {name: np.array([dimer.reference for dimer in dimers]) + 0.25 for name in sapt.PROTOCOLS}
    peer = {name: np.array([dimer.peer[name] for dimer in dimers]) for name in sapt.PROTOCOLS}
    exact = {name: peer[name] - ours[name] for name in sapt.PROTOCOLS}
    assert exact["monomers"].any()
    rows = sapt.table(ours, exact, dimers).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == list(sapt.PROTOCOLS)
    assert all("| 0.250 (" in row and row.endswith("| 0.00000 |") for row in rows[2:])


def test_forms_of_the_coulomb_energy(module):
    coulomb = module("coulomb")
    exact = coulomb.Point(np.zeros((2, 3)), 1.0, 0.1)
    other = coulomb.Point(np.array([[0.3, 0, 0], [0, 0, 0]]), 0.75, 0.2)
    open_box = other._replace(pressure_gpa=float("nan"))
    rows = coulomb.table({"kspace": exact, "shifted": other, "shifted+self": open_box}).splitlines()
    assert rows[2] == "| kspace | 0.0000 | 0.0000 | +0.0000 | 100.0 | 1.00× |"
    assert rows[3] == "| shifted | 0.1225 | 0.3000 | -0.2500 | 200.0 | 2.00× |"
    assert "| – |" in rows[4]


def test_counted_operations(module):
    """A product of matrices that the count contains, and what grows with what."""
    counted = module("so3lr_cost").counted
    config = ModelConfig.preset("so3lr")
    one = counted(config, 100, 1900, 40000, 200)
    more_pairs = counted(config, 100, 3800, 40000, 200)
    assert {name for name in one if one[name] != more_pairs[name]} == {"layers, of pairs"}
    assert more_pairs["layers, of pairs"][0] == 2 * one["layers, of pairs"][0]
    # forward, again backward, and its adjoint: two filters of each pair in all layers but the first
    filters = 1900 * (config.layers - 1) * 3 * 2 * 2 * config.chi_hidden * config.features
    assert filters < one["layers, of pairs"][0] < 3 * filters
    assert counted(config, 200, 3800, 80000, 200)["waves"][0] == 2 * one["waves"][0]


@pytest.mark.skipif(find_spec("so3krates_torch") is None, reason="the weights of SO3LR are not here")
def test_agreement_with_the_reference(module, tmp_path, monkeypatch, capsys):
    from so3k_md.cli import main

    assert main(["import", "so3lr", "-o", str(tmp_path / "so3lr.pt"), "--dtype", "float64"]) == 0
    agreement = module("so3lr_agreement")
    words = ["so3lr_agreement", str(tmp_path / "so3lr.pt"), "--structures", "OH-", "--codes", "ASE"]
    monkeypatch.setattr("sys.argv", words)
    agreement.main()
    assert "| OH- | 12 | 2 | " in capsys.readouterr().out
    monkeypatch.setitem(agreement.GATES, "exact", (1e-6, 1e-12, 1e-6))
    with pytest.raises(SystemExit, match="larger than its gate"):
        agreement.main()
