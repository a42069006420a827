"""What the benchmarks say follows from what they measure."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nonlocal_models import NONLOCAL
from scipy.spatial.distance import pdist
from small_models import CONFIGS

from so3k_md import ModelConfig, So3krates
from so3k_md.checkpoint import save_checkpoint
from so3k_md.data import read_frames
from so3k_md.evaluate import predict

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCAN = BENCHMARKS.parent / "simulations/data/cumulene/c9h4_gfn2_scan_public.npz"


def test_speedup_of_threads_is_the_median_over_the_rounds(module):
    threads = module("threads")
    rounds = [(10.0, 5.0), (12.0, 8.0), (30.0, 10.0)]  # speed-ups of 2, 1.5 and 3
    assert threads.speedup(rounds) == 2.0
    assert (
        threads.table({"ASE": {"9": rounds}}, 2).splitlines()[2]
        == "| ASE | 12.0 ms, 2 threads 8.0 ms, 2.00× |"
    )


def test_cluster_is_what_it_is_said_to_be(module):
    numbers, positions, group = module("nonlocal").cluster(500, 13)
    assert sorted(np.bincount(group)) == [6] + [13] * 38
    assert pdist(positions).min() > 0.8
    radius = np.sqrt(5 / 3 * ((positions - positions.mean(0)) ** 2).sum(1).mean())
    assert 500 / (4 / 3 * np.pi * radius**3) == pytest.approx(0.1, rel=0.1)
    widths = [np.ptp(positions[group == k], axis=0).max() for k in range(39)]
    assert np.median(widths) < 0.6 * 2 * radius  # groups are neighbors in space
    assert set(module("nonlocal").cluster(10, 10)[2]) == {0}


def turns(**times: float) -> dict[str, list[dict[str, float]]]:
    return {kind: [{"ms": ms, "mb": 100.0}, {"ms": 3 * ms, "mb": 120.0}] for kind, ms in times.items()}


def test_crossover_and_table(module):
    report = module("nonlocal_report")
    runs = {
        "10": turns(none=1, sphc=1, efa=2),
        "1000": turns(none=10, sphc=40, efa=20),
        "3000": turns(efa=60),
    }
    assert "about 1e+02 atoms" in report.crossover(runs)
    text = report.markdown({"one_group": runs, "lammps": {"500 atoms, 2 ranks": runs["10"]}})
    assert (
        "| one group of 1,000 | 20.0 ms, 120 MB | 80.0 ms, 4.00×, 120 MB | 40.0 ms, 2.00×, 120 MB |" in text
    )
    assert "| one group of 3,000 | – | – | 120.0 ms, 120 MB |" in text
    assert "| LAMMPS, 500 atoms, 2 ranks |" in text
    assert "efa costs more" in report.crossover({"10": runs["10"]})
    assert report.draw({"one_group": runs}).startswith(b"\x89PNG")


def test_operators_and_tape_are_counted(module):
    """A product of matrices: its operations, its bytes, and the tensors that its reverse pass needs."""
    roof = module("roof")
    a, b = torch.ones(6, 5, requires_grad=True), torch.ones(5, 4)
    operators, tape = roof.Operators(), roof.Tape([b])
    with operators, tape.hooks():
        (a @ b).exp().t().sum()
    count = operators.count()
    assert (count.launches, count.products) == (3, 2 * 6 * 5 * 4)
    assert count.moved == 4 * (30 + 20 + 24) + 4 * (24 + 24) + 4 * (24 + 1)
    assert count.others == 24 + 24
    assert (tape.largest, tape.bytes) == (4 * 24, 0)  # b is apart, a is not needed


def test_roof_of_a_model(module):
    """Counts of a box grow with it, and the bound is the slowest rate."""
    roof = module("roof")
    config = ModelConfig.preset("so3lr")
    one, two = roof.gpu_kernels(config, 100, 1900), roof.gpu_kernels(config, 200, 3800)
    assert all(b == pytest.approx(2 * a) for a, b in zip(one[1:], two[1:], strict=True) if a)
    assert one.launches == two.launches
    # three products of 38 pairs, in tiles of 48 rows, with 256 filters of 32 or of 64 functions
    assert one.split / 100 == 48 * 3 * 2 * 256 * (64 + 64 + 32)
    gpu = roof.GPUS["H100"]
    assert roof.seconds(roof.Count(4, 3e12, 0, 0), gpu) == {
        "memory": 1.0, "cache": 0.0, "arithmetic": 0.0, "launches": 1e-5
    }  # fmt: skip
    model = So3krates(CONFIGS["so3krates-2022"], [1, 8], seed=1).eval().requires_grad_(False)
    atoms = module("so3lr_vs_peer").water_box(2)
    found = roof.watched(model, module("engines").graph_of(atoms, model))
    rows = roof.table({"plain": found}, len(atoms)).splitlines()
    assert rows[2].startswith(f"| plain | {found[0].launches:.0f} | ")
    assert [row.split("|")[1].strip() for row in rows[-2:]] == ["plain, H100", "plain, H200"]


def test_torsion_of_models(module, tmp_path, monkeypatch, capsys):
    """Energies relative to 90 degrees; the local model cannot see the torsion, the other can."""
    cumulene = module("cumulene")
    for kind in ("none", "sphc"):
        config = NONLOCAL["sphc-2022"].__class__(
            features=12, layers=2, cutoff=2.9, degrees=(1, 2, 4), n_rbf=8, attention_scale=3.0, nonlocal_=kind
        )
        model = So3krates(config, [1, 6], seed=1)
        model.energies.head.scale.fill_(20.0)
        save_checkpoint(tmp_path / f"{kind}.ckpt", model, model.state_dict(), {})
    test = dict(np.load(SCAN))
    np.savez(tmp_path / "test.npz", z=test["z"], **{key: test[key][:3] for key in ("R", "E", "F")})
    monkeypatch.chdir(tmp_path)
    words = "cumulene none.ckpt sphc.ckpt --test test.npz --output out"
    monkeypatch.setattr(sys, "argv", words.split())
    cumulene.main()
    assert "largest deviation 20–160°" in capsys.readouterr().out
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(Path("out.json").read_text())
    theta, reference = np.array(found["theta"]), np.array(found["reference"])
    assert reference[theta == 90] == 0
    assert reference[theta == 0] == pytest.approx(0.8475, abs=1e-4)
    local, far = found["models"]
    assert local["span"] < 1e-9 < 1e-6 < far["span"]
    assert local["rms"] == pytest.approx(np.sqrt((reference**2).mean()))
    inner = (theta >= 20) & (theta <= 160)
    assert local["largest"] == pytest.approx(reference[inner].max())
    model = cumulene.load("sphc.ckpt", dtype="float64")
    energies = np.array([one.energy for one in predict(model, read_frames(SCAN))])
    assert far["energy"] == pytest.approx(energies - energies[theta == 90], abs=1e-9)
    with pytest.raises(cumulene.So3kError, match="exists already"):
        cumulene.main()
