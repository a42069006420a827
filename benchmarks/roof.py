"""What a step costs per atom in operators, bytes and products, and the time these take at the rates of a GPU.

    so3k-md import so3lr -o so3lr.pt --dtype float32 && so3k-md kernels build
    python benchmarks/roof.py so3lr.pt

Energy and gradient of a box of water. Plain layers, and what the compiled form does beside its kernels, are
counted by a dispatch mode: each operator that moves numbers is a launch, and reads its inputs and writes its
outputs once. Products are those of matrices (torch's flop counter); any other operator is one operation for
each number. The tape is the largest sum of the tensors that autograd keeps at one time. The work inside the
kernels is counted from the model's widths and the pairs of the box: for CPUs by so3lr_cost.py, for GPUs by
`gpu_kernels`. Nothing is measured on a GPU here: the times are lower bounds.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase import Atoms
from engines import graph_of, markdown
from so3lr_cost import REAL, config_of, parts_of
from so3lr_vs_peer import water_box
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Gpu(NamedTuple):
    """Rates of a GPU."""

    memory: float  # bytes/s that copies reach
    cache: float  # bytes/s of the second-level cache
    single: float  # float32 operations/s, without tensor cores
    half: float  # bfloat16 operations/s of dense matrices on tensor cores
    size: float  # bytes of memory


# NVIDIA's data sheets of H100 SXM and H200 SXM: 3.35 and 4.8 TB/s, 67 TFLOP/s float32, 989 TFLOP/s bfloat16
# (dense). Copies reach nine tenths of the memory's rate; that of the cache is from microbenchmarks of Hopper.
GPUS = {
    "H100": Gpu(3.0e12, 5.5e12, 67e12, 989e12, 80e9),
    "H200": Gpu(4.3e12, 5.5e12, 67e12, 989e12, 141e9),
}
LAUNCH = 2.5e-6  # s between the starts of two small kernels of one CUDA graph
SHARE = 0.6  # of the peak rate of matrix products that tiles of 16 rows reach
SPLIT = 3  # products of a float32 product whose operands are split in two bfloat16 numbers each
TILE = 16  # pairs of a tile of the GPU kernels; widths are padded to a multiple of it
RADIAL = {"bernstein": 32}  # functions of r that span the radial filters to 1e-7, other bases: 48
ATOMS = (22, 1_000, 50_000)  # for which launches are told
VIEWS = {"empty", "detach", "alias", "empty_strided", "new_empty", "lift_fresh"}  # these move no numbers


class Count(NamedTuple):
    """What a step of a box does, in all."""

    launches: float
    moved: float  # bytes through memory
    products: float  # operations of matrix products in float32
    others: float  # other operations in float32
    split: float = 0.0  # operations of products on tensor cores, operands in bfloat16
    cached: float = 0.0  # bytes gathered through the cache


class Operators(TorchDispatchMode):
    """Counts the operators that run, and what they read, write and compute."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.moved = Counter[str](), Counter[str]()
        self.products = self.others = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = str(func).split(".")[1 if str(func).startswith("aten.") else 0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if func.is_view or name in VIEWS or not tensors:
            return result
        self.launches[name] += 1
        self.moved[name] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        product = flop_registry.get(func._overloadpacket)
        if product is not None:
            self.products += product(*args, **kwargs, out_val=result)
        elif name.split("::")[0] != "so3k":
            self.others += max(tensor.numel() for tensor in tensors)
        return result

    def count(self) -> Count:
        """The sums over all operators."""
        return Count(self.launches.total(), self.moved.total(), self.products, self.others)


class Tape:
    """The largest number of bytes that autograd keeps at one time, each storage once."""

    def __init__(self, apart: list[Tensor]):
        self.bytes, self.largest = 0, 0
        self.users = Counter[int]()
        self.apart = {tensor.untyped_storage().data_ptr() for tensor in apart}

    def keep(self, tensor: Tensor) -> "Kept":
        """A tensor that autograd saves."""
        return Kept(self, tensor)

    def hooks(self) -> saved_tensors_hooks:
        """The context in which tensors are counted."""
        return saved_tensors_hooks(self.keep, lambda kept: kept.tensor)


class Kept:
    """A tensor on a tape, until autograd lets go of it."""

    def __init__(self, tape: Tape, tensor: Tensor):
        self.tape, self.tensor = tape, tensor.detach()  # with its history it would keep itself
        storage = tensor.untyped_storage()
        self.at, self.size = storage.data_ptr(), storage.nbytes()
        if self.at not in tape.apart and not tape.users[self.at]:
            tape.bytes += self.size
            tape.largest = max(tape.largest, tape.bytes)
        tape.users[self.at] += 1

    def __del__(self) -> None:
        self.tape.users[self.at] -= 1
        if self.at not in self.tape.apart and not self.tape.users[self.at]:
            self.tape.bytes -= self.size


def watched(model: Any, graph: Any) -> tuple[Count, int]:
    """What energy and gradient of a graph cost a model, and the bytes of its tape."""
    model.gradient(graph)  # tables and constants are made in the first call
    operators = Operators()
    with operators:
        model.gradient(graph)
    weights = [*model.parameters(), *model.buffers()]
    tape = Tape([tensor for tensor in weights if tensor.numel()])
    with tape.hooks():
        model.gradient(graph)
    return operators.count(), tape.largest


def padded(width: float) -> int:
    """The next multiple of a tile."""
    return TILE * math.ceil(width / TILE)


def gpu_kernels(config: Any, n_atoms: int, near: int) -> Count:
    """What kernels of a tile of 16 pairs a warp do, forward and in the reverse pass, without dense layers.

    An atom goes over all its pairs, and computes filters once forward; in the reverse pass again, with their
    adjoint. Both filters of a pair are one product with an inner width of hidden units and functions of r.

    Args:
        config: of the model.
        n_atoms: atoms.
        near: unordered pairs within the cutoff.
    """
    f, degrees, layers = config.features, len(config.degrees), config.layers
    heads = config.heads * padded(f / config.heads)
    columns = heads + degrees * padded(f / degrees)
    functions = RADIAL.get(config.radial_basis, 48)
    inner = functions + padded(config.chi_hidden)
    first = functions if config.chi_start == "zeros" else inner
    orders = config.chi_width
    each = 2 * near / n_atoms  # pairs of an atom
    rows = 2 * near * padded(each) / each  # of the tiles
    split = rows * 3 * 2 * columns * ((layers - 1) * inner + first)
    # per pair and layer, of 256 columns: 4,200 forward, 17,000 in the reverse pass (from the machine code)
    others = rows * layers * (4200 + 17000) * columns / 256
    forward, reverse = columns + heads + 2 * orders, 2 * columns + 2 * heads + 4 * orders
    cached = 2 * near * layers * REAL * (forward + reverse)
    pairs = 2 * near * (orders + 2) * REAL * (1 + 4 * layers)
    atoms = n_atoms * layers * REAL * 5 * (2 * columns + heads)
    # a layer: rows of q, k and v, messages and exchange, each forward and back; 20 for the rest of a step
    return Count(8 * layers + 20, pairs + atoms, 0.0, others, split, cached)


def seconds(count: Count, gpu: Gpu) -> dict[str, float]:
    """Time of a step by each rate of a GPU; the largest is a bound, if all others are hidden behind it."""
    matrices = count.products / (SHARE * gpu.single) + SPLIT * count.split / (SHARE * gpu.half)
    return {
        "memory": count.moved / gpu.memory,
        "cache": count.cached / gpu.cache,
        "arithmetic": matrices + count.others / gpu.single,
        "launches": LAUNCH * count.launches,
    }


def forms_of(model: str, atoms: Atoms) -> dict[str, tuple[Count, int]]:
    """Each form of a model: what a step of a box costs it, and its tape."""
    from so3k_md import load
    from so3k_md.checkpoint import eager
    from so3k_md.kernels.choose import accelerated, choose, is_compiled

    plain = eager(load(model, dtype="float32"))
    graph = graph_of(atoms, plain)
    found = {"plain": watched(plain, graph)}
    kernels = accelerated(plain, "auto")
    if not is_compiled(kernels):
        print(f"compiled forms: left out, {choose(plain, 'auto').reason}")
        return found
    beside, tape = watched(kernels, graph)
    parts = parts_of(plain, atoms)
    inside = sum(parts[name][0] for name in ("layers, of pairs", "layers, of atoms", "dispersion"))
    found[str(kernels.form)] = beside._replace(others=beside.others + inside), tape
    config = config_of(plain)
    if config.nonlocal_ != "none":
        print("GPU kernels: left out, what they do within groups is not counted here")
        return found
    own = gpu_kernels(config, len(atoms), len(graph.idx_i) // 2)
    found["GPU kernels, counted"] = added(own, beside, parts["layers, of atoms"][0]), tape
    return found


def added(kernels: Count, beside: Count, dense: float) -> Count:
    """Kernels, dense layers of atoms, and the operators beside them as on CPUs, but for their launches."""
    return kernels._replace(
        moved=kernels.moved + beside.moved,
        products=dense + beside.products,
        others=kernels.others + beside.others,
    )


def table(found: dict[str, tuple[Count, int]], n_atoms: int) -> str:
    """Markdown: counts per atom, then times per atom by each rate."""
    counts, times = {}, {}
    for form, (count, tape) in found.items():
        flop = (count.products, count.others, count.split)
        counts[form] = [f"{count.launches:.0f}"]
        counts[form] += [f"{1e-3 * value / n_atoms:.0f}" for value in (count.moved, count.cached)]
        counts[form] += [f"{1e-6 * value / n_atoms:.2f}" for value in flop]
        fits = [f"{gpu.size * n_atoms / tape / 1e3:.0f} k" for gpu in GPUS.values()]
        counts[form] += [f"{1e-3 * tape / n_atoms:.0f}", " / ".join(fits)]
        for name, gpu in GPUS.items():
            by_rate = seconds(count, gpu)
            launches = by_rate.pop("launches")
            cells = [f"{1e9 * value / n_atoms:.0f}" for value in by_rate.values()]
            for n in ATOMS:
                bound = max(*(value / n_atoms for value in by_rate.values()), launches / n)
                cells.append(f"{1e9 * bound:,.0f} ({n * bound * 1e3:.2f} ms)")
            times[f"{form}, {name}"] = cells
    heads = ["launches", "kB", "kB by cache", "MFLOP products", "MFLOP other", "MFLOP split", "kB tape"]
    heads.append(f"atoms in {' / '.join(f'{1e-9 * gpu.size:.0f}' for gpu in GPUS.values())} GB")
    bounds = [f"bound at {n:,} atoms" for n in ATOMS]
    rates = ["memory, ns/atom", "cache", "arithmetic", *bounds]
    return f"{markdown('form', heads, counts)}\n\n{markdown('form, GPU', rates, times)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="exported model, checkpoint or name of a bundled model")
    parser.add_argument("--edge", type=int, default=4, help="molecules on an edge of the box of water")
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.jit.set_fusion_strategy([])
    atoms = water_box(args.edge)
    found = forms_of(args.model, atoms)
    print(table(found, len(atoms)))
    if args.output:
        record = {form: {**count._asdict(), "tape": tape} for form, (count, tape) in found.items()}
        Path(args.output).write_text(json.dumps({"atoms": len(atoms), "forms": record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
