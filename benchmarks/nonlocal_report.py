"""Table and picture of benchmarks/nonlocal.py."""

import math
import statistics
from typing import Any

COLUMNS = ("none", "sphc", "efa")
GOALS = {"sphc": 2.0, "efa": 1.5}  # times the local model, at 500 atoms


def milliseconds(turns: list[dict[str, float]]) -> float:
    """The median over the turns."""
    return statistics.median(turn["ms"] for turn in turns)


def megabytes(turns: list[dict[str, float]]) -> float:
    """The largest over the turns."""
    return max(turn["mb"] for turn in turns)


def ratio(case: dict[str, list[dict[str, float]]], kind: str, base: str = "none") -> float:
    """The median of the ratios of time within a turn."""
    pairs = zip(case[kind], case[base], strict=True)
    return statistics.median(mine["ms"] / theirs["ms"] for mine, theirs in pairs)


def cell(case: dict[str, Any], kind: str) -> str:
    """Time, ratio to the local model where there is one, memory."""
    if kind not in case:
        return "–"
    text = f"{milliseconds(case[kind]):.1f} ms"
    if kind != "none" and "none" in case:
        text += f", {ratio(case, kind):.2f}×"
    return f"{text}, {megabytes(case[kind]):.0f} MB"


def markdown(results: dict[str, Any]) -> str:
    """All cases, and where sphc and efa cost the same."""
    lines = ["| case | none | sphc | efa |", "|---|---|---|---|"]
    for size, case in results["one_group"].items():
        lines.append(f"| one group of {int(size):,} | {' | '.join(cell(case, kind) for kind in COLUMNS)} |")
    for part, prefix in (("small_groups", ""), ("lammps", "LAMMPS, ")):
        for name, case in results.get(part, {}).items():
            lines.append(f"| {prefix}{name} | {' | '.join(cell(case, kind) for kind in COLUMNS)} |")
    lines.append("")
    lines.append(crossover(results["one_group"]))
    return "\n".join(lines)


def crossover(one_group: dict[str, Any]) -> str:
    """The size at which sphc becomes dearer than efa, by interpolation of log(ratio) in log(atoms)."""
    points = [
        (int(size), ratio(case, "sphc", "efa"))
        for size, case in one_group.items()
        if {"sphc", "efa"} <= set(case)
    ]
    for (small, low), (large, high) in zip(points, points[1:], strict=False):
        if low <= 1 < high:
            share = -math.log(low) / (math.log(high) - math.log(low))
            size = small * (large / small) ** share
            return f"Crossover: sphc costs more than efa from about {size:.2g} atoms a group on."
    if not points:
        return "Crossover: sphc and efa were not measured at the same sizes."
    dearer = "sphc" if points[0][1] > 1 else "efa"
    return (
        f"Crossover: none between {points[0][0]} and {points[-1][0]} atoms; {dearer} costs more throughout."
    )


def draw(results: dict[str, Any]) -> bytes:
    """Time, ratio to the local model, and memory against the atoms of the one group."""
    import matplotlib

    from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure, to_png

    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.6, 3.4)
        time, share, memory = figure.subplots(1, 3)
        for k, kind in enumerate(COLUMNS):
            cases = [(int(size), case) for size, case in results["one_group"].items() if kind in case]
            sizes = [size for size, _ in cases]
            style = {"color": colour(k), "marker": "o", "markersize": 3, "label": kind}
            time.loglog(sizes, [milliseconds(case[kind]) for _, case in cases], **style)
            memory.loglog(sizes, [megabytes(case[kind]) for _, case in cases], **style)
            both = [(size, ratio(case, kind)) for size, case in cases if kind != "none" and "none" in case]
            if both:
                share.loglog(*zip(*both, strict=True), **style)
                share.plot(500, GOALS[kind], "_", color=colour(k), markersize=16, markeredgewidth=2)
        share.axhline(1, color=GREY, linewidth=0.8)
        time.set(xlabel="atoms in the group", ylabel="energy and forces / ms", title="Time")
        share.set(xlabel="atoms in the group", ylabel="time / time of none", title="Ratio (bars: goals)")
        memory.set(xlabel="atoms in the group", ylabel="peak memory / MB", title="Memory of the process")
        time.legend()
        return to_png(figure)
