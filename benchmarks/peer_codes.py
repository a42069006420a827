"""ASE calculators of other programs, each imported only in the process that runs it.

Where published weights would have to be downloaded, the weights are random and the shape is the published
one, because time and memory do not depend on the values. Random forces are weak: atoms move almost freely.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import Calculator

ELEMENTS = [1, 6, 7, 8, 9, 15, 16, 17, 35, 53]  # of MACE-OFF
SYMBOLS = ["H", "C", "N", "O"]
SEED = 1


class Code(NamedTuple):
    """A program that has an ASE calculator."""

    calculator: Callable[[], Calculator]
    module: str  # what it imports; the memory that this takes is that of imports
    install: str  # arguments of pip


def so3krates_torch(device: str = "cpu") -> Calculator:
    """SO3LR in so3krates-torch, with its default cutoff of long-range pairs."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    settings = {"r_max_lr": 12.0, "dispersion_energy_cutoff_lr_damping": 2.0}
    return SO3LRCalculator(default_dtype="float32", device=device, **settings)


def so3lr_jax() -> Calculator:
    """SO3LR in the authors' own code; XLA takes as many threads as the process has cores."""
    cores = sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])]
    os.sched_setaffinity(0, cores)
    from so3lr import So3lrCalculator

    return So3lrCalculator(calculate_stress=False, lr_cutoff=12.0, dtype=np.float32)


def mace(channels: int, order: int, cutoff: float) -> Calculator:
    """MACE with the shape of a MACE-OFF23 model (Kovács et al., JACS 147, 17598 (2025), arXiv:2312.15211).

    Args:
        channels: of each irreducible representation.
        order: largest degree of the messages.
        cutoff: Å.
    """
    import torch
    from mace import modules
    from mace.calculators import MACECalculator

    from e3nn import o3  # isort: skip  (after mace, which prepares its import)

    hidden = " + ".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(order + 1))
    torch.manual_seed(SEED)
    model = modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=16.0,
        atomic_numbers=ELEMENTS,
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model], device="cpu", default_dtype="float32")


def aimnet2() -> Calculator:
    """AIMNet2 with the shape that its package describes."""
    import aimnet
    import torch
    from aimnet.calculators import AIMNet2ASE, AIMNet2Calculator
    from aimnet.config import build_module

    torch.manual_seed(SEED)
    model = build_module(str(Path(aimnet.__file__).parent / "models" / "aimnet2.yaml"))
    calculator = AIMNet2Calculator(model.float().eval(), device="cpu")
    return AIMNet2ASE(calculator)


def ani2x() -> Calculator:
    """The ensemble of eight networks of ANI-2x (Devereux et al., JCTC 16, 4192 (2020))."""
    import torch
    from torchani.arch import Assembler

    torch.manual_seed(SEED)
    assembler = Assembler(periodic_table_index=True)
    assembler.set_symbols(("H", "C", "N", "O", "S", "F", "Cl"))
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani2x", angular="ani2x")
    assembler.set_atomic_networks(ctor="ani2x")
    assembler.set_neighborlist("adaptive")
    assembler.set_zeros_as_self_energies()
    return assembler.assemble(8).float().requires_grad_(False).ase()


def nequip_calculator(model: Any, cutoff: float) -> Calculator:
    """The calculator of NequIP and Allegro, for a model that is not compiled."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator

    species = ChemicalSpeciesToAtomTypeMapper(
        model_type_names=SYMBOLS, chemical_species_to_atom_type_map={symbol: symbol for symbol in SYMBOLS}
    )
    transforms = [species, NeighborListTransform(r_max=cutoff)]
    return NequIPCalculator(model.eval(), "cpu", transforms=transforms)


def nequip(preset: str, cutoff: float) -> Calculator:
    """NequIP in one of the sizes that its package names."""
    from nequip.model import PresetNequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state(allow_tf32=False)
    shape = {"preset": preset, "r_max": cutoff, "type_names": SYMBOLS, "avg_num_neighbors": 16.0}
    return nequip_calculator(PresetNequIPGNNModel(seed=SEED, model_dtype="float32", **shape), cutoff)


def allegro(layers: int, order: int, features: int, cutoff: float) -> Calculator:
    """Allegro with some layers, degrees up to `order`, and as many scalar as tensor features."""
    from allegro.model import AllegroModel
    from nequip.utils.global_state import set_global_state

    set_global_state(allow_tf32=False)
    radial = {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 8}
    shape = {"l_max": order, "r_max": cutoff, "type_names": SYMBOLS, "avg_num_neighbors": 16.0}
    widths = {"num_layers": layers, "num_scalar_features": features, "num_tensor_features": features}
    model = AllegroModel(seed=SEED, model_dtype="float32", radial_chemical_embed=radial, **shape, **widths)
    return nequip_calculator(model, cutoff)


JAX = "SO3LR, the authors' JAX code"
CODES = {
    "so3krates-torch": Code(so3krates_torch, "so3krates_torch.calculator.so3", "so3krates-torch==0.2.1"),
    JAX: Code(so3lr_jax, "so3lr", "jax==0.5.3 flax ml_collections, and what --jax names"),
    "MACE-OFF small": Code(lambda: mace(96, 0, 4.5), "mace.calculators", "mace-torch==0.3.16"),
    "MACE-OFF medium": Code(lambda: mace(128, 1, 5.0), "mace.calculators", "mace-torch==0.3.16"),
    "AIMNet2": Code(aimnet2, "aimnet.calculators", "'aimnet[ase]'"),
    "ANI-2x, 8 networks": Code(ani2x, "torchani.arch", "torchani"),
    "NequIP M, 5 Å": Code(lambda: nequip("M", 5.0), "nequip.integrations.ase", "nequip"),
    "Allegro, 2 layers, l ≤ 2, 64 features, 5 Å": Code(
        lambda: allegro(2, 2, 64, 5.0), "allegro.model", "nequip-allegro"
    ),
}
