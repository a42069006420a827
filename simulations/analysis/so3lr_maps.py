"""Two pictures of a model with charges: the water dimer pulled apart, and the map of alanine dipeptide.

    python simulations/analysis/so3lr_maps.py --model so3lr.pt --output maps

water_dimer.png: interaction energy by distance of the oxygens, both molecules rigid, for the three forms of
the Coulomb energy.
ramachandran.png: energy of alanine dipeptide in the gas phase over φ and ψ, all else relaxed at each point;
with --trajectory and --top of a run (DCD, dump), the angles that it visited as points.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import mdtraj
import numpy as np
import openmm
from ase import Atoms
from matplotlib.figure import Figure
from numpy.typing import NDArray
from openmm import app, unit

from so3k_md import cli
from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure
from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.openmm import create_system
from so3k_md.files import atomic, check_output
from so3k_md.graph import COULOMB
from so3k_md.units import EV_IN_KJ_MOL, KJ_IN_KCAL

Floats = NDArray[np.float64]

ALANINE = Path(__file__).parents[1] / "data" / "so3lr" / "alanine.pdb"
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)  # C–N–Cα–C and N–Cα–C–N
STIFF = 2000.0  # kJ/mol/rad², holds φ and ψ during a relaxation
KCAL_MOL = EV_IN_KJ_MOL / KJ_IN_KCAL  # in an eV
TOP = 12.0  # kcal/mol, where the colours of the map end
DASHES = {"kspace": "-", "shifted+self": (0, (4, 2)), "shifted": (0, (1, 1.2))}


class Dimer(NamedTuple):
    """Interaction energies of two waters, kcal/mol."""

    distance: Floats  # (points,), of the oxygens, Å
    energy: dict[str, Floats]  # by form of the Coulomb energy, (points,)


class Map(NamedTuple):
    """Energies over two dihedrals."""

    angles: Floats  # (points,), degrees, of both
    energy: Floats  # (φ, ψ), kcal/mol above the lowest


def hydrogen_bonded(distance: float) -> Atoms:
    """Two waters of 0.9572 Å and 104.52° with a straight hydrogen bond, the oxygens so far apart, Å.

    The acceptor's bisector leans 57° from the line of the oxygens, away from the donor's other hydrogen.
    """
    angle, lean = np.radians(104.52), np.radians(57.0)
    donor = 0.9572 * np.array([[0, 0, 0], [1, 0, 0], [np.cos(angle), 0, -np.sin(angle)]])
    along = np.cos(0.5 * angle) * np.array([np.cos(lean), 0, np.sin(lean)])
    across = np.array([0, np.sin(0.5 * angle), 0])
    acceptor = 0.9572 * np.array([[0, 0, 0], along + across, along - across])
    return Atoms("OHHOHH", np.concatenate([donor, acceptor + [distance, 0, 0]]))


def water_dimer(model: str) -> Dimer:
    """Energies from 2.4 to 9 Å less those at 1000 Å, where each water keeps its charge."""
    distances = np.concatenate([np.arange(2.4, 3.6, 0.05), np.arange(3.6, 9.01, 0.15)])

    def at(distance: float, calculator: So3kCalculator) -> float:
        atoms = hydrogen_bonded(distance)
        atoms.arrays["fragment"], atoms.info["fragment_charges"] = np.repeat([0, 1], 3), [0, 0]
        atoms.calc = calculator
        return float(atoms.get_potential_energy())

    curves = {}
    for form in COULOMB:
        calculator = So3kCalculator(model, dtype="float64", coulomb=form)
        energies = np.array([at(distance, calculator) for distance in distances])
        curves[form] = KCAL_MOL * (energies - at(1000.0, calculator))
    return Dimer(distances, curves)


def ramachandran(model: str, points: int) -> Map:
    """Relaxed energies on a grid, each point from its neighbor."""
    pdb = app.PDBFile(str(ALANINE))
    made = create_system(pdb.topology, model)
    hold = openmm.CustomTorsionForce("k*(1-cos(theta-t)); t=select(which, psi0, phi0)")
    for name, value in (("k", STIFF), ("phi0", 0.0), ("psi0", 0.0)):
        hold.addGlobalParameter(name, value)
    hold.addPerTorsionParameter("which")
    hold.addTorsion(*PHI, [0.0])
    hold.addTorsion(*PSI, [1.0])
    hold.setForceGroup(1)
    made.system.addForce(hold)
    context = openmm.Context(made.system, openmm.VerletIntegrator(0.0005), made.platform)
    context.setPositions(pdb.positions)
    angles = -180.0 + 360.0 / points * np.arange(points)
    places = [(i, j if i % 2 == 0 else points - 1 - j) for i in range(points) for j in range(points)]
    energy = np.zeros((points, points))
    for place in places:
        for name, degrees in zip(("phi0", "psi0"), angles[list(place)], strict=True):
            context.setParameter(name, np.radians(degrees))
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
        found = context.getState(energy=True, groups={0}).getPotentialEnergy()
        energy[place] = found.value_in_unit(unit.kilocalorie_per_mole)
    return Map(angles, energy - energy.min())


def visited(trajectory: str, top: str) -> tuple[Floats, Floats]:
    """φ and ψ of each frame, degrees."""
    frames = mdtraj.load(trajectory, top=top)
    if frames.unitcell_lengths is not None:
        frames = frames.atom_slice(range(1 + max(PSI + PHI) + 5))
    both = (mdtraj.compute_dihedrals(frames, [place], periodic=False)[:, 0] for place in (PHI, PSI))
    phi, psi = (np.degrees(one) for one in both)
    return phi, psi


def draw_dimer(found: Dimer, name: str) -> Figure:
    """The three forms."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        axes.axhline(0, color=GREY, linewidth=0.8)
        for k, (form, dashes) in enumerate(DASHES.items()):
            axes.plot(found.distance, found.energy[form], color=colour(k), linestyle=dashes, label=form)
        axes.set(xlim=(2.4, 9), ylim=(-8, 3), title=f"Water dimer, {name}")
        axes.set(xlabel="O–O distance / Å", ylabel="interaction energy / kcal/mol")
        axes.legend()
    return figure


def draw_map(found: Map, name: str, points: tuple[Floats, Floats] | None) -> Figure:
    """Filled levels of 1 kcal/mol."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.2, 5.2)
        axes = figure.subplots()
        edges = np.append(found.angles, 180.0)
        whole = np.pad(found.energy, ((0, 1), (0, 1)), mode="wrap")
        levels = np.arange(0.0, TOP + 0.5)
        filled = axes.contourf(edges, edges, whole.T, levels, cmap="viridis", extend="max")
        axes.contour(edges, edges, whole.T, levels, colors="white", linewidths=0.4)
        if points:
            axes.plot(*points, ".", color=colour(1), markersize=2.5)
        i, j = np.unravel_index(found.energy.argmin(), found.energy.shape)
        axes.plot(found.angles[i], found.angles[j], "x", color="white", markersize=8, markeredgewidth=2)
        axes.grid(visible=False)
        axes.set(xlabel="φ / degrees", ylabel="ψ / degrees", title=f"Alanine dipeptide, gas phase, {name}")
        axes.set(xticks=range(-180, 181, 60), yticks=range(-180, 181, 60), aspect="equal")
        figure.colorbar(filled, ax=axes, label="energy / kcal/mol", shrink=0.9)
    return figure


def save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="so3lr.pt", help="exported file of a model with charges")
    parser.add_argument("--points", type=int, default=24, help="of the map, along each angle")
    parser.add_argument("--trajectory", help="of alanine dipeptide, by itself or first in water")
    parser.add_argument("--top", help="its topology")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures and maps.json")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier ones")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    names = ("water_dimer.png", "ramachandran.png", "maps.json")
    dimer_png, map_png, numbers = (check_output(args.output / name, args.overwrite) for name in names)
    points = visited(args.trajectory, args.top) if args.trajectory else None
    name = Path(args.model).stem
    dimer, relief = water_dimer(args.model), ramachandran(args.model, args.points)
    save(draw_dimer(dimer, name), dimer_png)
    save(draw_map(relief, name, points), map_png)
    curves = {form: energies.tolist() for form, energies in dimer.energy.items()}
    document: dict[str, Any] = {
        "water_dimer": {"distance_angstrom": dimer.distance.tolist(), "kcal_mol": curves},
        "ramachandran": {"angles_degrees": relief.angles.tolist(), "kcal_mol": relief.energy.tolist()},
    }
    with atomic(numbers) as temporary:
        temporary.write_text(json.dumps(document) + "\n")
    energies = dimer.energy["kspace"]
    lowest = energies.argmin()
    i, j = np.unravel_index(relief.energy.argmin(), relief.energy.shape)
    print(f"water dimer: {energies[lowest]:.2f} kcal/mol at {dimer.distance[lowest]:.2f} Å")
    print(f"alanine dipeptide: lowest at φ {relief.angles[i]:.0f}°, ψ {relief.angles[j]:.0f}°")
    print(f"pictures: {dimer_png}, {map_png}\nnumbers: {numbers}")


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
