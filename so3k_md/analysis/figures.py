"""Draws the pictures of a report. A trajectory has the same colour in all of them."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from so3k_md.analysis.dynamics import canonical_density
from so3k_md.analysis.geometry import Array
from so3k_md.analysis.results import Analysis

# The palette of Okabe and Ito, for colour-blind readers as well; dashes distinguish curves that overlap.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
GREY = "#6b7280"
MAX_PANELS = 12
MAX_NAMED_ATOMS = 40
STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#111827",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


def colour(k: int) -> str:
    """The colour of the k-th trajectory."""
    return COLOURS[k % len(COLOURS)]


def dash(k: int) -> Any:
    """The line style of the k-th trajectory where curves overlap."""
    return DASHES[k % len(DASHES)]


def new_figure(width: float, height: float) -> Figure:
    """A new figure, inches, without the global state of pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as data URI, the source of an `img` without a file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def draw_all(analyses: Sequence[Analysis]) -> dict[str, Figure]:
    """The pictures by section; those without data are left out."""
    drawings: dict[str, Callable[[Sequence[Analysis]], Figure | None]] = {
        "deviation": draw_deviation,
        "bonds": draw_bonds,
        "dihedrals": draw_dihedrals,
        "rdf": draw_rdf,
        "energy": draw_energy,
        "temperature": draw_temperature,
    }
    with matplotlib.rc_context(STYLE):
        figures = {name: draw(analyses) for name, draw in drawings.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def time_label(analyses: Sequence[Analysis]) -> str:
    """The label of a time axis; it shows frames if the time of any trajectory is unknown."""
    return "time / ps" if all(a.source.time_unit == "ps" for a in analyses) else "frame (time unknown)"


def frame_axis(analysis: Analysis, values: Array, analyses: Sequence[Analysis]) -> Array:
    """The times of a trajectory, or its frame numbers if the axis shows frames."""
    if time_label(analyses).startswith("time"):
        return values
    return np.arange(len(values)) * float(analysis.source.stride)


def running_mean(values: Array) -> Array:
    """Means over a window of 2 % of the series, which show the trend of a noisy series."""
    window = max(1, len(values) // 50)
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.full(window, 1 / window), mode="valid")


def legend(figure: Figure, analyses: Sequence[Analysis]) -> None:
    """Add one legend above all panels if there are several trajectories."""
    if len(analyses) < 2:
        return
    from_axes = figure.axes[0]
    handles = [
        from_axes.plot([], [], color=colour(k), linestyle=dash(k), label=analysis.label)[0]
        for k, analysis in enumerate(analyses)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 4))


def draw_deviation(analyses: Sequence[Analysis]) -> Figure | None:
    """RMSD against time and RMSF by atom."""
    shown = [(k, a, a.deviation) for k, a in enumerate(analyses) if a.deviation is not None]
    if not shown:
        return None
    figure = new_figure(9.6, 3.3)
    over_time, by_atom = figure.subplots(1, 2)
    longest = max((deviation for _, _, deviation in shown), key=lambda deviation: len(deviation.atoms))
    few = len(longest.atoms) <= MAX_NAMED_ATOMS
    for place, (k, analysis, deviation) in enumerate(shown):
        x = frame_axis(analysis, deviation.time, analyses)
        over_time.plot(x, deviation.rmsd, color=colour(k), alpha=0.3, linewidth=0.8)
        over_time.plot(x, running_mean(deviation.rmsd), color=colour(k))
        atoms = np.arange(len(deviation.rmsf))
        if few:
            width = 0.8 / len(shown)
            shift = (place - (len(shown) - 1) / 2) * width
            by_atom.bar(atoms + shift, deviation.rmsf, width, color=colour(k))
        else:
            by_atom.plot(atoms, deviation.rmsf, color=colour(k), linestyle=dash(k), linewidth=1.1)
    if few:
        upright = len(longest.atoms) > 12
        by_atom.set_xticks(range(len(longest.atoms)), longest.atoms, rotation=90 if upright else 0)
        by_atom.grid(visible=False, axis="x")
    over_time.set(xlabel=time_label(analyses), ylabel="RMSD / Å", title="Deviation from the first frame")
    by_atom.set(xlabel="atom", ylabel="RMSF / Å", title="Fluctuation of each atom")
    for axes in (over_time, by_atom):
        axes.set_ylim(bottom=0)
    legend(figure, analyses)
    return figure


def panels(n_panels: int) -> tuple[Figure, list[Any]]:
    """A grid of panels, at most three in a row; two rows of two for four panels."""
    columns = 2 if n_panels in (2, 4) else min(n_panels, 3)
    rows = -(-n_panels // columns)
    figure = new_figure(9.6, 2.35 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for empty in axes[n_panels:]:
        empty.set_axis_off()
    return figure, axes[:n_panels]


def draw_kinds(
    analyses: Sequence[Analysis], curves: Sequence[dict[str, tuple[Array, Array]]], fill: bool
) -> tuple[Figure, list[Any]] | None:
    """One panel for each kind, with a curve for each trajectory that has this kind."""
    kinds = list(dict.fromkeys(kind for of_one in curves for kind in of_one))[:MAX_PANELS]
    if not kinds:
        return None
    figure, axes = panels(len(kinds))
    for kind, panel in zip(kinds, axes, strict=True):
        for k, of_one in enumerate(curves):
            if kind not in of_one:
                continue
            x, y = of_one[kind]
            panel.plot(x, y, color=colour(k), linestyle=dash(k))
            if fill:
                panel.fill_between(x, y, color=colour(k), alpha=0.13, linewidth=0)
        panel.set_title(kind)
        panel.set_ylim(bottom=0)
    legend(figure, analyses)
    return figure, axes


def draw_bonds(analyses: Sequence[Analysis]) -> Figure | None:
    """Bond-length distributions, one panel for each type."""
    curves = [{d.kind: (d.centres, d.density) for d in a.bonds or ()} for a in analyses]
    drawn = draw_kinds(analyses, curves, fill=True)
    if drawn is None:
        return None
    for axes in drawn[1]:
        axes.set(xlabel="bond length / Å", ylabel="density / Å⁻¹")
    return drawn[0]


def draw_dihedrals(analyses: Sequence[Analysis]) -> Figure | None:
    """Dihedral distributions, one panel for each type."""
    curves = [{d.kind: (d.centres, d.density * 100) for d in a.dihedrals or ()} for a in analyses]
    drawn = draw_kinds(analyses, curves, fill=True)
    if drawn is None:
        return None
    for axes in drawn[1]:
        axes.set(xlabel="dihedral / degrees", ylabel="density / % per degree", xlim=(-180, 180))
        axes.set_xticks([-180, -60, 60, 180])
        axes.xaxis.set_minor_locator(MultipleLocator(60))
    return drawn[0]


def draw_rdf(analyses: Sequence[Analysis]) -> Figure | None:
    """Radial distribution functions, one panel for each pair of elements."""
    curves = [{d.kind: (d.r, d.g) for d in a.rdf or ()} for a in analyses]
    drawn = draw_kinds(analyses, curves, fill=False)
    if drawn is None:
        return None
    for axes in drawn[1]:
        axes.axhline(1.0, color=GREY, linewidth=0.9, linestyle=":")
        axes.set(xlabel="r / Å", ylabel="g(r)")
        axes.set_xlim(left=0)
    return drawn[0]


def draw_energy(analyses: Sequence[Analysis]) -> Figure | None:
    """Change of the conserved energy with its fitted line, and the distribution of the potential energy."""
    shown = [(k, a.energy, a.source.atoms) for k, a in enumerate(analyses) if a.energy is not None]
    if not shown:
        return None
    potentials = [(k, e.potential / n_atoms * 1000) for k, e, n_atoms in shown if e.potential is not None]
    figure = new_figure(9.6, 3.3)
    axes = figure.subplots(1, 2 if potentials else 1, squeeze=False).ravel().tolist()
    for k, energy, _ in shown:
        change = energy.change * 1000
        axes[0].plot(energy.time, change, color=colour(k), alpha=0.45, linewidth=0.8)
        production = analyses[k].production
        part = slice(production.row if production else 0, None)
        x, y = energy.time[part], change[part]
        line = y.mean() + energy.drift.slope * 1000 * (x - x.mean())
        axes[0].plot(x, line, color=colour(k), linestyle=dash(k))
    axes[0].set(xlabel="time / ps", ylabel="change / meV per atom", title="Energy and its drift")
    for k, values in potentials:
        draw_histogram(axes[1], values - values.mean(), k)
    if potentials:
        axes[1].set(
            xlabel="potential energy − mean / meV per atom", ylabel="density / (meV per atom)⁻¹",
            title="Potential energy", ylim=(0, None),
        )  # fmt: skip
    legend(figure, analyses)
    return figure


def draw_temperature(analyses: Sequence[Analysis]) -> Figure | None:
    """Temperature against time, and its distribution with that of the canonical ensemble."""
    shown = [(k, a.temperature) for k, a in enumerate(analyses) if a.temperature is not None]
    if not shown:
        return None
    figure = new_figure(9.6, 3.3)
    over_time, spread = figure.subplots(1, 2)
    timed = all(temperature.time is not None for _, temperature in shown)
    for k, temperature in shown:
        x = temperature.time if timed else np.arange(len(temperature.values))
        over_time.plot(x, temperature.values, color=colour(k), alpha=0.25, linewidth=0.7)
        over_time.plot(x, running_mean(temperature.values), color=colour(k))
        draw_histogram(spread, temperature.values, k)
        summary = temperature.summary
        centre = summary.mean if summary.target is None else summary.target
        grid = centre + summary.expected_std * np.linspace(-4, 5, 300)
        grid = grid[grid > 0]
        canonical = canonical_density(grid, centre, summary.degrees_of_freedom)
        spread.plot(grid, canonical, color=GREY, linewidth=1.2, linestyle=":")
        if summary.target is not None:
            over_time.axhline(summary.target, color=GREY, linewidth=1.2, linestyle=":")
    over_time.set(xlabel="time / ps" if timed else "row of the log", ylabel="T / K", title="Temperature")
    spread.set(
        xlabel="T / K", ylabel="density / K⁻¹", title="Distribution (dotted: canonical)", ylim=(0, None)
    )
    legend(figure, analyses)
    return figure


def draw_histogram(axes: Any, values: Array, k: int) -> None:
    """A filled step histogram in the colour of the k-th trajectory."""
    n_bins = int(np.clip(np.sqrt(len(values)), 8, 60))
    density, edges = np.histogram(values, bins=n_bins, density=True)
    axes.stairs(density, edges, color=colour(k), linestyle=dash(k), linewidth=1.5)
    axes.stairs(density, edges, color=colour(k), fill=True, alpha=0.13)
