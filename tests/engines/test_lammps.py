"""pair_style so3k says what PyTorch says, on any number of ranks, for any box."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import SINGLE_POINT, lammps_frame, read_single_point, run, setup, write_data
from toys import STRUCTURES, pytorch, save_toy, structure

from so3k_md.export.torchscript import archive, script
from so3k_md.model import ModelConfig, So3krates, set_dtype

RANKS = (1, 2, 3, 4)
LAMMPS_STRUCTURES = (*STRUCTURES, "corner", "apart", "crystal")
VOIGT = ([0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1])


def lammps_structure(name: str) -> Atoms:
    """A structure of the engine tests, or one that is hard for domain decomposition."""
    if name == "corner":  # all but one rank own nothing
        atoms = structure("open")
        atoms.set_cell(np.eye(3) * 40)
        atoms.pbc = True
    elif name == "apart":  # pairs within the skin, none within the cutoff
        atoms = Atoms("OHC", positions=[[1.0, 5, 5], [5.5, 5, 5], [5.5, 5, 9.7]], cell=[20, 10, 12], pbc=True)
    elif name == "crystal":  # one atom that sees nothing but its own images
        atoms = Atoms("C", cell=[[2.6, 0, 0], [0.9, 2.7, 0], [-0.4, 0.7, 2.8]], pbc=True)
    else:
        atoms = structure(name)
    return lammps_frame(atoms)


@functools.cache
def euclidean() -> So3krates:
    """The 2024 form: degree 0, SPHCs that start as zeros, so that the first layer needs no exchange."""
    small = {"features": 16, "layers": 3, "degrees": (0, 1), "n_rbf": 8, "radial_hidden": 16, "cutoff": 4.0}
    config = replace(
        ModelConfig.preset("euclidean-2024"), **small, heads=2, layer_norm=True, residual_mlp=True
    )
    model = set_dtype(So3krates(config, elements=[1, 6, 8], seed=4), torch.float64).eval()
    model.energies.head.scale.fill_(5.0)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Models and data files."""
    folder = tmp_path_factory.mktemp("lammps")
    save_toy(folder / "toy.pt")
    (folder / "euclidean.pt").write_bytes(archive(script(euclidean())))
    for name in LAMMPS_STRUCTURES:
        write_data(folder / f"data.{name}", lammps_structure(name))
    return folder


def single_point(name: str, model="toy.pt", extra="", **options) -> str:
    """The commands that compute structure `name`, after which comes another one."""
    atoms = lammps_structure(name)
    label = f"{name}-{model}"
    commands = setup(atoms, f"../data.{name}", f"../{model}", **options)
    return "clear" + commands + extra + SINGLE_POINT.format(name=label)


@pytest.fixture(scope="session")
def results(folder):
    """Folder with the results on some ranks: one process computes all structures."""

    @functools.cache
    def on_ranks(ranks: int) -> Path:
        place = folder / f"ranks{ranks}"
        place.mkdir()
        parts = [single_point(name) for name in LAMMPS_STRUCTURES]
        run(place, "".join([*parts, single_point("triclinic", "euclidean.pt")]), ranks)
        return place

    return on_ranks


@pytest.mark.parametrize("name", LAMMPS_STRUCTURES)
@pytest.mark.parametrize("ranks", RANKS)
def test_equals_pytorch(results, ranks, name):
    agrees(read_single_point(results(ranks), f"{name}-toy.pt"), pytorch(lammps_structure(name)))


@pytest.mark.parametrize("ranks", RANKS)
def test_first_layer_without_exchange(results, ranks):
    expected = pytorch(lammps_structure("triclinic"), euclidean())
    agrees(read_single_point(results(ranks), "triclinic-euclidean.pt"), expected)


@pytest.mark.parametrize("name", LAMMPS_STRUCTURES)
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_ranks_agree(results, ranks, name):
    one, many = (read_single_point(results(n), f"{name}-toy.pt") for n in (1, ranks))
    assert many.energy == pytest.approx(one.energy, rel=1e-12)
    np.testing.assert_allclose(many.forces, one.forces, atol=1e-10)
    np.testing.assert_allclose(many.virial, one.virial, atol=1e-10 * max(np.abs(one.virial).max(), 1.0))


def agrees(found, expected) -> None:
    """The gates in float64; sums of atoms equal the whole."""
    virial = expected.virial[0].numpy()
    scale = max(np.abs(virial).max(), 1.0)
    assert found.energy == pytest.approx(expected.energy.item(), rel=1e-9)
    np.testing.assert_allclose(found.energies, expected.outputs.energies.detach(), rtol=1e-9)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-8)
    np.testing.assert_allclose(found.virial, virial[VOIGT][:6], atol=1e-8 * scale)
    np.testing.assert_allclose(found.virials.sum(0), virial[VOIGT][:6], atol=1e-8 * scale)
    np.testing.assert_allclose(found.centroid_virials.sum(0), virial[VOIGT], atol=1e-8 * scale)
