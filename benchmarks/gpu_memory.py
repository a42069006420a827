"""Memory of a step with the kernels for GPUs per atom, counted on a machine without one.

    so3k-md kernels build
    OMP_NUM_THREADS=1 python benchmarks/gpu_memory.py

OpenMM's module takes a few steps of boxes of water on the pretended device of tests/device, where the kernels
run by emulation. Counted are the tensors that the device holds at one time in the last step. Weights and
tables do not grow with the box: the memory of an atom is the difference of two boxes. `device` has the lists
that the device makes, `host` those of the host with arrays of all pairs. The model has the shape of SO3LR and
random weights. Not counted is what CUDA's libraries and torch's allocator take besides the tensors.
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import torch
from engines import markdown
from so3lr_vs_peer import water_box

sys.path.append(str(Path(__file__).parents[1] / "tests" / "device"))
EDGES = (2, 4)  # molecules on an edge of the two boxes
BEFORE = 3  # steps before the one that is counted, in which TorchScript still compiles
MOVED_NM = 1e-4  # in each step, so that the lists are kept


def device_form() -> Any:
    """A model of the shape of SO3LR with the kernels for GPUs, for the pretended device."""
    from fake_cuda import load_fake_cuda

    from so3k_md import ModelConfig, So3krates
    from so3k_md.checkpoint import KERNEL_FILES
    from so3k_md.kernels.choose import accelerated
    from so3k_md.kernels.parts import COMPILED
    from so3k_md.model import set_dtype

    load_fake_cuda()
    COMPILED["pretend"], KERNEL_FILES["pretend"] = COMPILED["cuda"], KERNEL_FILES["cuda"]
    model = set_dtype(So3krates(ModelConfig.preset("so3lr"), [1, 8]), torch.float32)
    return accelerated(model.eval().requires_grad_(False), "on", device="pretend")


def most_bytes(model: Any, edge: int, coulomb: str, on_device: bool) -> tuple[int, int]:
    """Atoms of a box, and the bytes that the device holds at most in a step."""
    import pretend

    from so3k_md.engines.openmm import module, particles

    atoms = water_box(edge)
    lists_of = particles.lists_of
    if not on_device:
        particles.lists_of = lambda *given: lists_of(*given[:-1], on_gpu=False)
    try:
        scripted = module.script_for_openmm(
            model, atoms.numbers.tolist(), periodic=True, coulomb=coulomb, cutoff_lr=12.0
        )
    finally:
        particles.lists_of = lists_of
    there = torch.jit.load(io.BytesIO(scripted.save_to_buffer()), map_location="pretend")
    positions, box = (torch.tensor(x / 10).to("pretend") for x in (atoms.positions, atoms.cell.array))
    for step in range(BEFORE + 1):
        pretend.most_bytes()
        there(positions + step * MOVED_NM, box)
    return len(atoms), pretend.most_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coulomb", default="shifted+self", choices=["kspace", "shifted", "shifted+self"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = device_form(), {}
    for name, on_device in (("device", True), ("host", False)):
        (few, small), (many, large) = (most_bytes(model, edge, args.coulomb, on_device) for edge in EDGES)
        each = (large - small) / (many - few)
        rows[name] = [f"{each / 1e3:.1f}", f"{(large - each * many) / 1e6:.1f}", f"{80e9 / each / 1e6:.2f}"]
    print(markdown("lists of the", ["kB an atom", "MB of the model", "million atoms in 80 GB"], rows))


if __name__ == "__main__":
    main()
