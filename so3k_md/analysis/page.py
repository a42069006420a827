"""Renders the report as one HTML file that needs no other files: verdicts, then pictures and tables."""

import math
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from so3k_md.analysis.distributions import Distribution
from so3k_md.analysis.figures import colour, data_uri, draw_all, to_png
from so3k_md.analysis.results import Analysis

STYLE_FILE = Path(__file__).with_name("report.css")
OPEN_ROWS = 12  # longer tables are collapsed
Rows = Sequence[Sequence[str]]


def render(analyses: Sequence[Analysis], title: str) -> str:
    """The whole page."""
    pictures = {name: data_uri(to_png(figure)) for name, figure in draw_all(analyses).items()}
    body = [
        f"<header><p class='kicker'>so3k-md · trajectory report</p><h1>{escape(title)}</h1></header>",
        *(verdict(k, analysis) for k, analysis in enumerate(analyses)),
        section("At a glance", table(["", *(a.label for a in analyses)], glance(analyses), "glance")),
        *(picture_section(name, pictures, analyses) for name in SECTIONS if name in pictures),
        absences(analyses),
        sources(analyses),
    ]
    meta = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
    head = f"{meta}<title>{escape(title)}</title>"
    style = STYLE_FILE.read_text(encoding="utf-8")
    return (
        f"<!doctype html>\n<html lang='en'><head>{head}<style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def verdict(k: int, analysis: Analysis) -> str:
    """The section with the verdict on one trajectory, its first events and its notes."""
    stability = analysis.stability
    state = "good" if stability.stable else "bad"
    events = "".join(f"<li>frame {event.frame}: {escape(event.text)}</li>" for event in stability.events[1:6])
    notes = "".join(f"<li>{escape(note)}</li>" for note in analysis.source.notes)
    more = f"<ul>{events}{notes}</ul>" if events or notes else ""
    swatch = f"<span class='swatch' style='background:{colour(k)}'></span>"
    return (
        f"<section class='verdict {state}'><b>{swatch}{escape(analysis.label)}</b>"
        f"<p>{escape(stability.verdict)}</p>{more}</section>"
    )


def glance(analyses: Sequence[Analysis]) -> Rows:
    """The main numbers, a column for each trajectory; rows without any value are left out."""
    rows: list[tuple[str, Callable[[Analysis], str | None]]] = [
        ("System", lambda a: f"{subscript(a.source.composition)} ({a.source.atoms} atoms)"),
        ("Frames", lambda a: f"{a.source.frames}"),
        ("Time", span),
        (drift_name(analyses), drift_text),
        ("Averages over", production_text),
        ("Temperature / K", temperature_text),
        ("Standard deviation of T / K (canonical)", spread_text),
        ("Potential energy / eV", potential_text),
        ("RMSD, mean and last / Å", rmsd_text),
    ]
    filled = [(name, [read(analysis) for analysis in analyses]) for name, read in rows]
    return [[name, *(cell or "–" for cell in cells)] for name, cells in filled if any(cells)]


def span(analysis: Analysis) -> str:
    """The first and last time of a trajectory."""
    source = analysis.source
    if source.time_unit != "ps":
        return "unknown"
    return f"{source.first_time:g} to {source.last_time:g} ps"


def subscript(formula: str) -> str:
    """Formulas with subscripts, C₂H₆O."""
    small = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return re.sub(r"(?<=[A-Za-z])\d+", lambda found: found.group().translate(small), formula)


def with_error(value: float, error: float) -> str:
    """A number and its standard error with a common power of ten, (1.20 ± 0.30) × 10⁻⁶."""
    size = max(abs(value), error)
    if size == 0 or not math.isfinite(size):
        return f"{value:g} ± {error:g}"
    power = math.floor(math.log10(size))
    text = f"{value / 10**power:.2f} ± {error / 10**power:.2f}".replace("-", "−")
    return f"({text}) × 10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def drift_text(analysis: Analysis) -> str | None:
    """The drift with its standard error."""
    if analysis.energy is None:
        return None
    drift = analysis.energy.drift
    return f"{with_error(drift.slope, drift.error)}{EXCHANGE[analysis.energy.conserved]}"


EXCHANGE = {
    "yes": "",
    "no": " (a thermostat or barostat exchanges energy: no measure of conservation)",
    "unknown": " (a measure of conservation in NVE only)",
}


def drift_name(analyses: Sequence[Analysis]) -> str:
    """The name of the row of drifts: of the conserved energy if every run conserves it, else of the total."""
    kinds = {analysis.energy.conserved for analysis in analyses if analysis.energy}
    return f"Drift of the {'conserved' if kinds == {'yes'} else 'total'} energy / eV/atom/ps"


def production_text(analysis: Analysis) -> str | None:
    """The start of the averages, and the number of rows."""
    found = analysis.production
    if found is None or not found.rows:
        return None
    start = f"from row {found.row}" if found.start is None else f"from {found.start:g} ps"
    return f"{start} on, {found.rows} rows of the log ({found.source})"


def temperature_text(analysis: Analysis) -> str | None:
    """Mean temperature with its standard error, and the difference from the target in standard errors."""
    if analysis.temperature is None:
        return None
    summary = analysis.temperature.summary
    text = f"{summary.mean:.1f} ± {summary.error:.1f}"
    if summary.target is None or summary.error == 0:
        return text
    return f"{text} ({(summary.mean - summary.target) / summary.error:+.1f} σ from {summary.target:g})"


def spread_text(analysis: Analysis) -> str | None:
    """Standard deviation of the temperature, and that of the canonical ensemble."""
    if analysis.temperature is None:
        return None
    summary = analysis.temperature.summary
    return f"{summary.std:.1f} ({summary.expected_std:.1f}, {summary.degrees_of_freedom} degrees of freedom)"


def potential_text(analysis: Analysis) -> str | None:
    """Mean potential energy with its standard error."""
    energy = analysis.energy
    if energy is None or energy.potential_mean is None:
        return None
    return f"{energy.potential_mean:.4f} ± {energy.potential_error:.4f}".replace("-", "−")


def rmsd_text(analysis: Analysis) -> str | None:
    """Mean and last RMSD."""
    deviation = analysis.deviation
    return None if deviation is None else f"{deviation.mean:.3f}, {deviation.last:.3f}"


def bond_rows(analyses: Sequence[Analysis]) -> str:
    """Mean, standard deviation and extremes of each type of bond."""
    head = ["bond", "how many", "mean / Å", "std / Å", "shortest / Å", "longest / Å"]
    rows = [
        [
            d.kind,
            a.label,
            str(d.number),
            f"{d.mean:.4f}",
            f"{d.std:.4f}",
            f"{d.minimum:.3f}",
            f"{d.maximum:.3f}",
        ]
        for a in analyses
        for d in a.bonds or ()
    ]
    return kind_table(head, rows, several=len(analyses) > 1)


def dihedral_rows(analyses: Sequence[Analysis]) -> str:
    """Share of cis, gauche and trans of each type of dihedral."""
    head = ["dihedral", "how many", "cis (|φ| < 30°)", "gauche (30–90°)", "90–150°", "trans (> 150°)"]
    rows = [[d.kind, a.label, str(d.number), *shares(d)] for a in analyses for d in a.dihedrals or ()]
    return kind_table(head, rows, several=len(analyses) > 1)


def shares(dihedral: Distribution) -> list[str]:
    """Probability of |phi| in 0…30, 30…90, 90…150 and 150…180 degrees, %."""
    angle = abs(dihedral.centres)
    width = dihedral.centres[1] - dihedral.centres[0]
    inside = [(angle >= low) & (angle < high) for low, high in ((0, 30), (30, 90), (90, 150), (150, 180))]
    return [f"{100 * width * dihedral.density[mask].sum():.1f} %" for mask in inside]


def rdf_rows(analyses: Sequence[Analysis]) -> str:
    """The highest maximum of each g(r)."""
    head = ["pair", "pairs", "frames", "highest g", "at r / Å", "r up to / Å"]
    rows = [
        [g.kind, a.label, str(g.pairs), str(g.frames), f"{g.peak_g:.2f}", f"{g.peak_r:.2f}", f"{g.r[-1]:.2f}"]
        for a in analyses
        for g in a.rdf or ()
    ]
    return kind_table(head, rows, several=len(analyses) > 1)


def kind_table(head: Sequence[str], rows: Rows, several: bool) -> str:
    """A table of kind, run and numbers, sorted by kind; without the column of the run if there is one run."""
    kinds = list(dict.fromkeys(row[0] for row in rows))
    ordered = sorted(rows, key=lambda row: kinds.index(row[0]))
    if several:
        head = [head[0], "run", *head[1:]]
    else:
        ordered = [[row[0], *row[2:]] for row in ordered]
    state = " open" if len(ordered) <= OPEN_ROWS else ""
    return f"<details{state}><summary>Numbers</summary>{table(head, ordered)}</details>"


def no_table(analyses: Sequence[Analysis]) -> str:
    """No table, for sections whose numbers are in the first table."""
    return ""


SECTIONS: dict[str, tuple[str, str, Callable[[Sequence[Analysis]], str]]] = {
    "energy": (
        "Energy",
        "The line is the fitted drift; its standard error accounts for correlated rows. The drift measures "
        "the accuracy of the integration if the run conserves the energy shown: in NVE, or if the log has "
        "the conserved quantity of the thermostat. Otherwise heat exchange changes the energy.",
        no_table,
    ),
    "temperature": (
        "Temperature",
        "Dotted: the target, and the canonical distribution for f degrees of freedom, of standard deviation "
        "T √(2/f). An NVE run is narrower.",
        no_table,
    ),
    "deviation": (
        "RMSD and RMSF",
        "Each molecule is superposed on itself; equal molecules are averaged. Exchange of equivalent atoms, "
        "as in a rotating methyl group, counts as deviation. Atoms are numbered from 0.",
        no_table,
    ),
    "bonds": ("Bond lengths", "Normalised to one; bins of 0.01 Å.", bond_rows),
    "dihedrals": (
        "Dihedrals",
        "All chains of four bonded atoms: φ, ψ, ω and χ1 of proteins, others by element and, where atoms of "
        "the same elements are bonded differently, by the neighbors of each; bins of 5°.",
        dihedral_rows,
    ),
    "rdf": (
        "Radial distribution functions",
        "Pairs within one molecule are left out if there are several molecules; g = 1 is the mean density.",
        rdf_rows,
    ),
}


def picture_section(name: str, pictures: dict[str, str], analyses: Sequence[Analysis]) -> str:
    """A heading, a picture, its caption, and its numbers."""
    title, caption, numbers = SECTIONS[name]
    picture = f"<img src='{pictures[name]}' alt='{title}'><p class='caption'>{escape(caption)}</p>"
    return section(title, picture + numbers(analyses))


def section(title: str, content: str) -> str:
    """A section of the page."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def table(head: Sequence[str], rows: Rows, kind: str = "") -> str:
    """A table whose first column names the row."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    whole = f"<table class='{kind}'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='scroll'>{whole}</div>"


def absences(analyses: Sequence[Analysis]) -> str:
    """A table of what was not analysed, with the reasons."""
    rows = [[SECTIONS[name][0], a.label, reason] for a in analyses for name, reason in a.absent.items()]
    return section("Not analysed", table(["analysis", "run", "why"], rows, "text")) if rows else ""


def sources(analyses: Sequence[Analysis]) -> str:
    """A table of the files and assumptions of the analysis."""
    rows = []
    for analysis in analyses:
        source, energy, temperature = analysis.source, analysis.energy, analysis.temperature
        frames = "every frame" if source.stride == 1 else f"one of {source.stride} frames"
        directions = "".join(axis for axis, on in zip("xyz", source.periodic, strict=True) if on) or "no"
        rows += [
            [analysis.label, "trajectory", f"{source.trajectory}, {frames}"],
            ["", "topology", source.topology],
            ["", "bonds", f"{source.bonds} from {source.bonds_from}"],
            ["", "time", source.time_from],
            ["", "periodic", f"{directions}: {source.periodic_from}"],
        ]
        if source.log:
            rows.append(["", "log", f"{source.log}{f', {energy.rows}, {energy.quantity}' if energy else ''}"])
        if temperature:
            rows.append(["", "degrees of freedom", temperature.summary.degrees_from])
    criteria = f"<p class='caption'>{escape(analyses[0].stability.criteria)}</p>"
    return section("How it was made", table(["run", "what", "from"], rows, "text") + criteria)
