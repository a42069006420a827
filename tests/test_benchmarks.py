"""What the benchmarks say follows from what they measure."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from nonlocal_models import NONLOCAL
from scipy.spatial.distance import pdist
from small_models import CONFIGS, SMALL

from so3k_md import ModelConfig, So3krates
from so3k_md.checkpoint import save_checkpoint
from so3k_md.data import read_frames
from so3k_md.evaluate import predict
from so3k_md.export import torchscript

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


def test_process_of_a_case(module, tmp_path, capsys):
    """Time, peak memory, and the part of it that imports do not take."""
    peers, engines = module("so3lr_vs_peer"), module("engines")
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    held: list[np.ndarray] = []

    def case(atoms, model):
        held.append(np.ones(8 * 2**20))  # 64 MB
        return 0.001 * len(atoms)

    peers.run_case(case, str(tmp_path / "water.xyz"), "", in_child=False)
    told = json.loads(capsys.readouterr().out)
    assert told["ms"] == 3.0
    assert told["over"] <= told["mb"]
    command = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'] + os.environ['X'])"]
    assert engines.in_process(command, threads=2, X="3") == 23
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        engines.in_process([sys.executable, "-c", "1 / 0"])


def test_programs_that_are_not_here_are_left_out(module, tmp_path, monkeypatch, capsys):
    peers = module("peers")
    code = peers.CODES["AIMNet2"]._replace(module="no_such_module", install="no-such-package")
    monkeypatch.setitem(peers.CODES, "AIMNet2", code)
    monkeypatch.setitem(peers.CODES, "MACE-OFF small", code._replace(module="json"))
    names = [peers.JAX, "AIMNet2", "MACE-OFF small"]
    here = [sys.executable]
    found = peers.available(Namespace(codes=names, jax=None, python=here))
    assert list(found) == [*peers.OURS, "MACE-OFF small"]
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{peers.JAX}: left out, --jax names a folder")
    assert told[1:] == ["AIMNet2: left out, not importable: pip install no-such-package"]
    (tmp_path / "so3lr.py").write_text("import json\n")
    python = str(tmp_path / "no_python_but_an_error")
    Path(python).write_text("#!/bin/sh\nexit 1\n")
    Path(python).chmod(0o755)
    found = peers.available(Namespace(codes=[peers.JAX], jax=str(tmp_path), python=[python, *here]))
    assert found[peers.JAX] == sys.executable


def test_table_of_programs(module):
    """Ratios are those within a turn; cases that failed or would take too much are dashes."""
    peers = module("peers")
    base = [{"ms": 2.0, "mb": 500.0, "over": 50.0}, {"ms": 4.0, "mb": 510.0, "over": 60.0}]
    slow = [{"ms": 6.0, "mb": 900.0, "over": 300.0}, {"ms": 20.0, "mb": 800.0, "over": 200.0}]
    sizes = {"64 waters": {peers.BASE: base, "so3k-md, LAMMPS": base, "AIMNet2": slow}}
    sizes["512 waters"] = {peers.BASE: base, "AIMNet2": [{}]}
    rows = peers.table(sizes).splitlines()
    assert rows[2].endswith("| 3.0 ms, 1.0×, 510 MB (60) | 3.0 ms, 1.0×, 510 MB (60) |")
    assert rows[3] == "| so3k-md, LAMMPS | 3.0 ms, 1.0×, 510 MB | – |"
    assert rows[4] == "| AIMNet2 | 13.0 ms, 4.0×, 900 MB (300) | – |"
    limits = Namespace(case_seconds=1.0, case_gb=1.0)
    assert not peers.too_much(base[0], 8.0, limits)
    assert peers.too_much(slow[1], 8.0, limits)  # 10 steps of 160 ms
    assert peers.too_much(slow[0] | {"ms": 1.0}, 8.0, limits)  # 2.4 GB


@pytest.fixture
def gpu_folder(tmp_path: Path) -> Path:
    """A folder in which gpu.py finds small models."""
    small = {name: size for name, size in SMALL.items() if name != "cutoff"}
    for name in ("so3lr", "so3krates-2022"):
        config = replace(ModelConfig.preset(name), **small)
        torchscript.save(So3krates(config, [1, 6, 7, 8], seed=1), tmp_path / f"{name}.pt", name)
    return tmp_path


@pytest.mark.slow
def test_rehearsal_of_a_gpu(module, gpu_folder, monkeypatch, capsys):
    """Each case writes its result at once, is not run again, and a failed check stops the run."""
    gpu = module("gpu")
    words = f"gpu {gpu_folder} --rehearse --shapes so3lr so3krates-2022 --parts checks graphs sizes"
    monkeypatch.setattr(sys, "argv", words.split())
    gpu.main()
    file = gpu_folder / "results.json"
    results = json.loads(file.read_text())
    cases = [case for part in ("checks", "graphs", "sizes") for case in results if case.startswith(part)]
    assert len(cases) == 2 + 2 + 4
    assert not [case for case in cases if "error" in results[case]]
    for shape in ("so3lr", "so3krates-2022"):
        assert results[f"checks/{shape}"]["plain float32"]["passed"]
        assert results[f"sizes/{shape}/plain/0"]["near_pairs_per_atom"] > 0
    assert "| so3lr, plain float64 | " in capsys.readouterr().out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "tried", lambda case, args: pytest.fail(f"{case} ran again"))
        gpu.main()
    results["checks/so3lr"]["plain float32"]["passed"] = False
    file.write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="checks/so3lr: errors larger than"):
        gpu.main()


def test_gpu_names_what_stood_in_the_way(module, tmp_path, monkeypatch):
    gpu = module("gpu")
    args = Namespace(folder=str(tmp_path), rehearse=True, so3lr=None, threads=1, case_seconds=60.0)

    def refused(*arguments, **keywords):
        raise SystemExit("command:\nTraceback\nOutOfMemoryError: CUDA out of memory")

    monkeypatch.setattr(gpu, "in_process", refused)
    record = gpu.tried("sizes/so3lr/plain/1000", args)
    assert record["error"] == "OutOfMemoryError: CUDA out of memory"
    assert gpu.failed(record)
    assert len(gpu.water(gpu.FULL, 10)) == 10_290
    assert gpu.told(
        {"sizes/a/plain/1": {"ns_per_atom": 2.0}, "sizes/a/plain/2": record}, "sizes"
    ).splitlines()[2:] == [
        "| a/plain/1 | 2 | – |",
        "| a/plain/2 | – | OutOfMemoryError: CUDA out of memory |",
    ]
    if not torch.cuda.is_available():
        monkeypatch.setattr(sys, "argv", ["gpu", str(tmp_path)])
        with pytest.raises(SystemExit, match="add --rehearse"):
            gpu.main()


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


def test_studies_stop_continue_and_end(module, tmp_path, monkeypatch, capsys):
    """A training without time is in the table with its epoch; the next call ends it, a third does nothing."""
    studies, rmd17 = module("studies"), module("rmd17")
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(rmd17, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(studies, "GRACE", 0.1)
    small = {"features": 12, "layers": 1, "degrees": [1], "heads": 2, "n_rbf": 4, "radial_hidden": 8}
    monkeypatch.setitem(rmd17.MODELS, "2024", {"preset": "euclidean-2024", **small})
    source = BENCHMARKS.parent / "simulations/data/rmd17"
    full = dict(np.load(source / "rmd17_ethanol_train01.npz"))
    few = {key: value[:12] if len(value) == 1000 else value for key, value in full.items()}
    for name in ("train01", "test01_public"):
        np.savez(tmp_path / f"rmd17_ethanol_{name}.npz", **few)

    def benchmark(epochs: int, hours: float) -> str:
        words = f"rmd17 --data {tmp_path} --runs {tmp_path / 'runs'} --molecules ethanol --models 2024"
        monkeypatch.setattr(sys, "argv", [*words.split(), "--epochs", str(epochs), "--hours", str(hours)])
        rmd17.main(rmd17.__doc__, "rmd17", rmd17.studies, rmd17.table, rmd17.add)
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| ethanol"))

    def frames_of_a_study(molecule, model, args):
        made = study(molecule, model, args)
        return made._replace(
            data=made.data | {"n_train": 8, "n_valid": 4}, train=made.train | {"valid_every": 1}
        )

    study = rmd17.study
    monkeypatch.setattr(rmd17, "study", frames_of_a_study)
    first = benchmark(100_000, 30 / 3600)
    assert "epoch" in first
    reached = json.loads((tmp_path / "results" / "rmd17.json").read_text())["ethanol-2024"]["epochs"]
    last = benchmark(reached + 2, 1.0)
    assert "epoch" not in last
    outcome = studies.read(tmp_path / "results" / "rmd17.json")["ethanol-2024"]
    assert outcome.finished
    assert outcome.epochs == reached + 2
    assert set(outcome.errors["test"]) == {"energy", "forces"}
    assert benchmark(reached + 2, 1.0) == last
