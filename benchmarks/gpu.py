"""Everything to check and to measure on a GPU, in one run that a cut-off does not lose.

    so3k-md kernels build && so3k-md lammps build
    python benchmarks/gpu.py results              # on a machine with a CUDA device
    python benchmarks/gpu.py results --rehearse   # the same program on a CPU, with small sizes

Checks the compiled form of each kind of model against plain layers in float64, and stops with a table if an
error is larger than its tolerance. Then measures energies and forces of a molecule, by CUDA graphs too, and
of boxes of water of 1,000 to 1,000,000 atoms with their memory, and steps in ASE, OpenMM, LAMMPS and
so3krates-torch. Last, runs the checks under compute-sanitizer if that is there. The models have random
weights, because time does not depend on them (--so3lr FILE: an exported SO3LR). Each case is a process of
its own with a limit of time; its result is added to results/results.json at once, errors included. Cases
with a result are not run again: the same command continues a run that was cut off. `plain` and `compiled`
are the forms of `so3k_md.kernels.choose`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
from ase import Atoms
from engines import graph_of, in_process, lammps_engine, markdown, openmm_engine, timed
from so3lr_vs_peer import DATA, ours, peak_mb, peer, water_box

FORMS = {"plain": "off", "compiled": "auto"}  # option `kernels` of each
TOOLS = ("memcheck", "racecheck")
SANITIZER_SECONDS = 900.0  # its own limit, because these tools are slow
TIMED = ("so3lr", "so3krates-2022")
CRYSTAL = 7  # molecules on an edge of the box that is repeated: 1,029 atoms
REPEATS = {1: (1, 1, 1), 10: (5, 2, 1), 50: (5, 5, 2), 200: (8, 5, 5), 1000: (10, 10, 10)}
# Largest error of the energies of atoms, of charges and of the virial relative to their largest value, and of
# forces relative to their root mean square, of any form on the device
TOLERANCES = {"float32": 2e-4, "float64": 1e-9}


class Scale(NamedTuple):
    """Sizes of a run."""

    device: str
    edge: int  # molecules on an edge of the box of the checks
    sizes: tuple[int, ...]  # thousands of atoms, keys of REPEATS; 0 is the box of the checks
    engines: tuple[int, ...]
    seconds: float  # a case repeats its step about this long


FULL = Scale("cuda", 4, tuple(REPEATS), (1, 10, 50), 3.0)
REHEARSAL = Scale("cpu", 2, (0,), (0,), 0.1)


class Setting(NamedTuple):
    """What every case reads."""

    folder: Path
    scale: Scale
    so3lr: str | None


def shapes() -> dict[str, Any]:
    """The kinds of models, by name."""
    from so3k_md import ModelConfig

    old = ModelConfig.preset("so3krates-2022")
    return {
        "so3lr": ModelConfig.preset("so3lr"),
        "so3krates-2022": old,
        "euclidean-2024": ModelConfig.preset("euclidean-2024"),
        "sphc": replace(old, nonlocal_="sphc", layers=3),
        "efa": replace(old, nonlocal_="efa", layers=3, efa_reach=40.0),
    }


def model_file(setting: Setting, shape: str) -> Path:
    """The exported file of a kind of model, made at its first use."""
    from so3k_md import So3krates
    from so3k_md.export import torchscript

    if shape == "so3lr" and setting.so3lr:
        return Path(setting.so3lr)
    file = setting.folder / f"{shape}.pt"
    if not file.exists():
        torchscript.save(So3krates(shapes()[shape], [1, 6, 7, 8], seed=1), file, shape)
    return file


def water(scale: Scale, thousands: int) -> Atoms:
    """A periodic box of water, or for 0 that of the checks."""
    return water_box(CRYSTAL).repeat(REPEATS[thousands]) if thousands else water_box(scale.edge)


class NoKernels(Exception):
    """The compiled form is not available, with the reason."""


class Loaded(NamedTuple):
    """A model in one of its forms."""

    model: Any
    frozen: Any  # as engines call it
    name: str  # of the form


def loaded(setting: Setting, shape: str, form: str, dtype: str = "float32") -> Loaded:
    """A model in one of FORMS."""
    import torch

    from so3k_md.kernels.choose import choose, is_compiled, load_frozen

    torch.jit.set_fusion_strategy([])
    file = model_file(setting, shape)
    model, frozen = load_frozen(file, setting.scale.device, dtype, FORMS[form])
    if form == "compiled" and not is_compiled(model):
        raise NoKernels(choose(model, FORMS[form]).reason)
    return Loaded(model, frozen, str(model.form))


def errors(found: Any, exact: Any) -> dict[str, float]:
    """Largest errors of an evaluation; see TOLERANCES."""
    scales = {
        "energies": (found.outputs.energies, exact.outputs.energies, exact.outputs.energies.abs().max()),
        "forces": (found.forces, exact.forces, exact.forces.square().sum(1).mean().sqrt()),
        "virial": (found.virial, exact.virial, exact.virial.abs().max()),
    }
    if exact.outputs.charges.numel():
        charges = exact.outputs.charges
        scales["charges"] = (found.outputs.charges, charges, charges.abs().max())
    return {name: float((a - b).abs().max() / scale) for name, (a, b, scale) in scales.items()}


def check(setting: Setting, shape: str) -> dict[str, Any]:
    """Errors of a kind of model against plain layers in float64 on the CPU; one group if it is non-local."""
    from so3k_md.graph import to_device
    from so3k_md.model.forces import evaluate, on_cpu
    from so3k_md.needs import needs_of

    atoms = water_box(setting.scale.edge)
    on_host = setting._replace(scale=setting.scale._replace(device="cpu"))
    reference = loaded(on_host, shape, "plain", "float64")
    atoms.pbc = needs_of(reference.model).nonlocal_kind == "none"
    graph = graph_of(atoms, reference.model)
    exact = on_cpu(evaluate(reference.frozen, graph, 1))
    graph = to_device(graph, setting.scale.device)
    record: dict[str, Any] = {}
    for form, dtype in (("plain", "float64"), ("plain", "float32"), ("compiled", "float32")):
        try:
            found = loaded(setting, shape, form, dtype)
        except NoKernels as reason:
            record[form] = {"left_out": str(reason)}
            continue
        worst = errors(on_cpu(evaluate(found.frozen, graph, 1)), exact)
        passed = all(error <= TOLERANCES[dtype] for error in worst.values())
        record[f"{found.name} {dtype}"] = worst | {"passed": passed}
    return record


def size(setting: Setting, shape: str, form: str, thousands: str) -> dict[str, Any]:
    """Time and memory of energies, forces and virial of a box of water."""
    import torch

    from so3k_md.model.forces import evaluate

    model, frozen, name = loaded(setting, shape, form)
    atoms = water(setting.scale, int(thousands))
    start, before = time.perf_counter(), peak_mb()
    graph = graph_of(atoms, model, setting.scale.device)
    made = time.perf_counter() - start
    seconds = timed(lambda: evaluate(frozen, graph, 1).forces[:1].cpu(), seconds=setting.scale.seconds)
    on_gpu = setting.scale.device == "cuda"
    used = torch.cuda.max_memory_allocated() if on_gpu else 2**20 * (peak_mb() - before)
    n = len(atoms)
    return {
        "form": name,
        "atoms": n,
        "ns_per_atom": 1e9 * seconds / n,
        "bytes_per_atom": used / n,
        "near_pairs_per_atom": len(graph.idx_i) / n,
        "graph_s": made,
    }


def engine(setting: Setting, name: str, thousands: str) -> dict[str, Any]:
    """A step of dynamics in an engine, in the form that the engine chooses."""
    atoms, device = water(setting.scale, int(thousands)), setting.scale.device
    model = str(model_file(setting, "so3lr"))
    run: dict[str, Callable[[], float]] = {
        "ASE": lambda: ours(atoms, model, device=device),
        "OpenMM": lambda: openmm_engine(atoms, model, device, "torchforce"),
        "LAMMPS": lambda: lammps_engine(atoms, model, device, 1),
        "so3krates-torch": lambda: peer(atoms, model, device),
    }
    seconds = run[name]()
    return {"atoms": len(atoms), "ms": 1e3 * seconds, "ns_per_atom": 1e9 * seconds / len(atoms)}


def molecule(setting: Setting, form: str) -> dict[str, Any]:
    """Energies and forces of alanine dipeptide, call by call and as a CUDA graph."""
    import torch

    from so3k_md.model.forces import evaluate

    model, frozen, name = loaded(setting, "so3lr", form)
    atoms = Atoms(ase.io.read(DATA / "alanine_dipeptide.xyz"))
    graph = graph_of(atoms, model, setting.scale.device)

    def step() -> Any:
        return evaluate(frozen, graph, 1).forces

    record: dict[str, Any] = {"form": name, "atoms": len(atoms)}
    record["ms"] = 1e3 * timed(lambda: step().cpu(), seconds=setting.scale.seconds)
    if setting.scale.device != "cuda":
        return record | {"graph": "left out: CUDA only"}
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    try:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            forces = step()
    except RuntimeError as error:
        return record | {"graph": f"not captured: {str(error).splitlines()[0]}"}

    def replay() -> None:
        captured.replay()
        forces.cpu()

    return record | {"graph_ms": 1e3 * timed(replay, seconds=setting.scale.seconds)}


def sanitized(setting: Setting, tool: str, shape: str) -> dict[str, Any]:
    """A check under a tool of compute-sanitizer."""
    command = [tool_path(), "--tool", tool, "--error-exitcode", "9", sys.executable, __file__]
    command += [str(setting.folder), "--case", f"checks/{shape}"]
    command += ["--rehearse"] * (setting.scale is REHEARSAL)
    command += ["--so3lr", setting.so3lr] if setting.so3lr else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=SANITIZER_SECONDS)
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return {"exit": done.returncode, "said": lines[-1]}


def tool_path() -> str:
    """compute-sanitizer on PATH; empty without it."""
    return shutil.which("compute-sanitizer") or ""


RUN: dict[str, Callable[..., dict[str, Any]]] = {
    "checks": check,
    "graphs": molecule,
    "sizes": size,
    "engines": engine,
    "sanitizer": sanitized,
}


def cases(part: str, scale: Scale, kinds: list[str]) -> list[str]:
    """The cases of a part, as `part/argument/…`, small ones first."""
    peers = ["so3krates-torch"] if find_spec("so3krates_torch") else []
    names = {
        "checks": kinds,
        "sanitizer": [f"{tool}/{kind}" for tool in TOOLS for kind in kinds if tool_path()],
        "graphs": list(FORMS) if "so3lr" in kinds else [],
        "sizes": [
            f"{kind}/{form}/{n}" for n in scale.sizes for kind in TIMED if kind in kinds for form in FORMS
        ],
        "engines": [f"{name}/{n}" for n in scale.engines for name in ("ASE", "OpenMM", "LAMMPS", *peers)]
        if "so3lr" in kinds
        else [],
    }
    return [f"{part}/{name}" for name in names[part]]


def run_case(setting: Setting, case: str) -> dict[str, Any]:
    """The result of a case, in this process."""
    part, *arguments = case.split("/")
    try:
        return RUN[part](setting, *arguments)
    except NoKernels as reason:
        return {"left_out": str(reason)}


def tried(case: str, args: argparse.Namespace) -> dict[str, Any]:
    """The result of a case from a process of its own, or its error."""
    command = [sys.executable, __file__, args.folder, "--case", case]
    command += ["--rehearse"] * args.rehearse + (["--so3lr", args.so3lr] if args.so3lr else [])
    start = time.perf_counter()
    try:
        limit = None if case.startswith("sanitizer/") else args.case_seconds
        record = in_process(command, args.threads, limit)
    except subprocess.TimeoutExpired:
        record = {"error": f"more than {args.case_seconds:.0f} s"}
    except SystemExit as error:
        record = {"error": str(error).strip().splitlines()[-1][:300]}
    return record | {"wall_s": time.perf_counter() - start}


def told(results: dict[str, dict[str, Any]], part: str) -> str:
    """Markdown: the cases of a part that have results, or what stood in their way."""
    rows: dict[str, dict[str, Any]] = {}
    for case, record in results.items():
        if case.startswith(f"{part}/"):
            inner = {name: value for name, value in record.items() if isinstance(value, dict)}
            flat = {name: value for name, value in record.items() if name not in inner and name != "wall_s"}
            name = case.removeprefix(f"{part}/")
            rows |= {name: flat} if flat else {}
            rows |= {f"{name}, {form}": values for form, values in inner.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    cells = {name: [cell(row.get(column, "–")) for column in columns] for name, row in rows.items()}
    return markdown(part, columns, cells)


def failed(record: dict[str, Any]) -> bool:
    """Whether a check found an error beyond its tolerance or under a tool, or was not finished."""
    forms = [value for value in record.values() if isinstance(value, dict)]
    wrong = any(form.get("passed") is False for form in forms)
    return wrong or "error" in record or record.get("exit", 0) != 0


def here() -> dict[str, Any]:
    """The machine and the versions, without their use."""
    import torch

    from so3k_md import __version__

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {"device": name, "torch": torch.__version__, "so3k_md": __version__, "started": time.ctime()}


def main() -> None:
    """Run all cases that have no result yet, part by part, and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="for results and models; made if it does not exist")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with small sizes")
    parser.add_argument("--parts", nargs="+", default=list(RUN), choices=list(RUN))
    parser.add_argument("--shapes", nargs="+", default=list(shapes()), choices=list(shapes()))
    parser.add_argument("--so3lr", help="exported file of SO3LR, instead of random weights")
    parser.add_argument("--again", action="store_true", help="run cases again that ended with an error")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--case-seconds", type=float, default=300.0, help="limit of a case")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    scale = REHEARSAL if args.rehearse else FULL
    setting = Setting(Path(args.folder), scale, args.so3lr)
    if args.case:
        print(json.dumps(run_case(setting, args.case)))
        return
    from so3k_md.files import atomic

    machine = here()
    if scale.device == "cuda" and machine["device"] == "no GPU":
        raise SystemExit("no CUDA device is here: add --rehearse to run the same program on the CPU")
    setting.folder.mkdir(exist_ok=True)
    file = setting.folder / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"machine": machine}
    if "sanitizer" in args.parts and not tool_path():
        print("compute-sanitizer: left out, it is not on PATH")
    for part in args.parts:
        for case in cases(part, scale, args.shapes):
            if case not in results or (args.again and "error" in results[case]):
                results[case] = tried(case, args)
                with atomic(file) as temporary:
                    temporary.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{case}: {results[case]}", file=sys.stderr)
        print(f"\n{told(results, part)}")
        checks = [case for case in results if case.startswith(("checks/", "sanitizer/"))]
        wrong = [case for case in checks if failed(results[case])]
        if wrong:
            raise SystemExit(
                f"{', '.join(wrong)}: errors larger than {TOLERANCES}, found by a tool, or unfinished"
            )


if __name__ == "__main__":
    main()
