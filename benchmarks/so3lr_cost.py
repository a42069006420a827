"""Cost of a step of SO3LR per atom, counted and measured: how far from what the processor could do.

    so3k-md import so3lr -o so3lr.pt --dtype float32 && so3k-md kernels build
    python benchmarks/so3lr_cost.py so3lr.pt --output so3lr_cost.json

Boxes of water from 192 to 5,184 atoms, velocity Verlet of ASE at 0.5 fs, float32, one thread, each size in a
process of its own. Floating-point operations and bytes are counted from the model's widths and the pairs of
the box (`counted`), those of the layers, of long pairs and of waves, forward and in the reverse pass. The
floor is the larger of operations / peak and bytes / bandwidth, both measured in the same process: the product
of two large matrices in float32, and copies of arrays far larger than any cache.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from engines import in_process
from so3lr_vs_peer import ours, water_box

EDGES = (4, 6, 8, 10, 12)  # molecules on an edge
REAL, WIDE, INDEX = 4, 8, 8  # bytes of float32, float64 and indices


def counted(config: Any, n_atoms: int, near: int, far: int, waves: int) -> dict[str, tuple[float, float]]:
    """(operations, bytes) of a step by parts.

    A multiplication and an addition are two operations; exponentials, roots and divisions are one. Bytes are
    those that must come from or go to memory if each array is read and written once where it is used.

    Args:
        config: of the model.
        n_atoms: atoms.
        near: unordered pairs within the cutoff.
        far: unordered pairs within the long cutoff.
        waves: k vectors of one half of space.
    """
    f, h, layers, degrees = config.features, config.chi_hidden, config.layers, len(config.degrees)
    orders = sum(2 * degree + 1 for degree in config.degrees)
    # of a pair in a layer, both directions at once: filters, their table of quintics, the products
    spherical = 2 * h * (2 * degrees + 4) + 2 * (2 * h * f)
    table, table_derivative = 12 * 2 * f, 12 * 2 * f
    products = 2 * (3 * 2 * f + 2 * f + 2 * orders)
    products_back = 2 * (3 * 2 * f + 2 * 2 * f + 8 * 2 * f + 6 * orders)
    forward, backward = spherical + table + products, 2 * spherical + 2 * h * f + table + table_derivative
    pair = layers * (forward + backward + products_back)
    if config.chi_start == "zeros":  # then the first layer has no spherical filters
        pair -= 2 * 3 * 2 * h * f
    # of an atom in a layer: query, key of both kinds, value; exchange and residual MLP; twice that backwards
    maps = 2 * f * (3 * f / config.heads + 2 * f / degrees)
    mixing = 2 * (f + degrees) ** 2 + 2 * 2 * f * f
    atom = 3 * layers * (maps + mixing) + 3 * 3 * 2 * f * (f // 2)
    harmonics = 3 * sum(2 * (2 * l + 3) * 3 * (2 * l + 1) for l in range(max(config.degrees)))
    pair_bytes = (6 * layers + 4) * (REAL * (orders + 2) + 2 * INDEX) + 3 * 2 * WIDE + 2 * INDEX
    atom_bytes = 4 * layers * REAL * (2 * 5 * f + 4 * f + 2 * orders)
    return {
        "layers, of pairs": (near * (pair + harmonics), near * pair_bytes),
        "layers, of atoms": (n_atoms * atom, n_atoms * atom_bytes),
        "dispersion": (far * 110, far * (2 * 3 * WIDE + 2 * INDEX + 2 * 3 * REAL)),
        "waves": (n_atoms * waves * 2 * (2 + 4 + 4), n_atoms * 4 * REAL),
    }


def peak(seconds: float = 2.0) -> tuple[float, float]:
    """Operations and bytes per second of one thread."""
    a = np.ones((1024, 1024), dtype=np.float32)
    source = np.ones(64 * 2**20, dtype=np.float32)
    target = np.empty_like(source)

    def fastest(work: Any) -> float:
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
        return best

    return 2 * 1024**3 / fastest(lambda: a @ a), 2 * source.nbytes / fastest(
        lambda: np.copyto(target, source)
    )


def config_of(model: Any) -> Any:
    """The configuration of a model, eager or exported."""
    from so3k_md.config import from_mapping
    from so3k_md.model_config import ModelConfig
    from so3k_md.needs import needs_of

    return from_mapping(ModelConfig, json.loads(needs_of(model).config), "model")


def parts_of(model: Any, atoms: Atoms) -> dict[str, tuple[float, float]]:
    """`counted` of a model and a structure."""
    import torch

    from so3k_md.graph import CUTOFF_LR
    from so3k_md.physics.kspace import LatticeSum
    from so3k_md.structure.pairs import neighbor_pairs

    config = config_of(model)

    def pairs(cutoff: float) -> int:
        box = atoms.positions, atoms.cell.array, np.array(atoms.pbc)
        return len(neighbor_pairs(*box, cutoff, once=True)[0])

    far = waves = 0
    if config.electrostatics:
        far = pairs(CUTOFF_LR)
        waves = int((LatticeSum().lattice(torch.tensor(atoms.cell.array)).weight > 0).sum())
    return counted(config, len(atoms), pairs(config.cutoff), far, waves)


def case(model: str, edge: int) -> dict[str, Any]:
    """One box: counts, measured time and the floor."""
    import torch

    from so3k_md import load

    torch.set_num_threads(1)
    atoms = water_box(edge)
    parts = parts_of(load(model), atoms)
    operations, bandwidth = peak()
    seconds = ours(Atoms(atoms), model)
    return {
        "atoms": len(atoms),
        "parts": {
            name: {"flop": flop / len(atoms), "bytes": b / len(atoms)} for name, (flop, b) in parts.items()
        },
        "ms": 1e3 * seconds,
        "peak_gflops": 1e-9 * operations,
        "bandwidth_gb": 1e-9 * bandwidth,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: what is counted and measured, per atom."""
    lines = [
        "| atoms | ms/step | µs/atom | MFLOP/atom | kB/atom | GFLOP/s | floor / µs/atom | measured / floor |",
        "|---" * 8 + "|",
    ]
    for one in results:
        flop, moved = (sum(part[key] for part in one["parts"].values()) for key in ("flop", "bytes"))
        own = 1e3 * one["ms"] / one["atoms"]
        floor = 1e6 * max(flop / (1e9 * one["peak_gflops"]), moved / (1e9 * one["bandwidth_gb"]))
        lines.append(
            f"| {one['atoms']} | {one['ms']:.1f} | {own:.0f} | {1e-6 * flop:.2f} | {1e-3 * moved:.0f} | "
            f"{1e-3 * flop / own:.0f} | {floor:.0f} | {own / floor:.1f} |"
        )
    last = results[-1]
    lines += ["", f"By parts, {last['atoms']} atoms:", "", "| part | MFLOP/atom | kB/atom |", "|---|---|---|"]
    for name, part in last["parts"].items():
        lines.append(f"| {name} | {1e-6 * part['flop']:.3f} | {1e-3 * part['bytes']:.1f} |")
    lines.append("")
    lines.append(f"Peak {last['peak_gflops']:.0f} GFLOP/s, memory {last['bandwidth_gb']:.1f} GB/s.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what so3k-md import so3lr wrote")
    parser.add_argument(
        "--edges", type=int, nargs="+", default=EDGES, help="molecules on an edge of each box"
    )
    parser.add_argument("--output", help="JSON file")
    parser.add_argument("--edge", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.edge:
        print(json.dumps(case(args.model, args.edge)))
        return
    results = []
    for edge in args.edges:
        command = [sys.executable, __file__, args.model, "--edge", str(edge)]
        results.append(in_process(command, OPENBLAS_NUM_THREADS="1"))
    print(table(results))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
