"""Shows the non-local attention within one group of atoms in each layer, as a picture and as numbers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure
from so3k_md.analysis.geometry import Array, Integers
from so3k_md.analysis.results import as_json
from so3k_md.files import atomic

MAX_NAMED = 40  # largest number of atoms whose names fit next to a matrix
UNITS = {
    "r": "Å",
    "phi": "none, 0 to 1",
    "alpha": "none, one number for each degree; the message is phi alpha Y",
}


class LayerAttention(NamedTuple):
    """The pairs of one layer with φ_χ > 0; idx_i attends to idx_j."""

    idx_i: Integers  # (pairs,), atoms of the group, from 0
    idx_j: Integers  # (pairs,)
    r: Array  # (pairs,), distance in real space, Å
    phi: Array  # (pairs,), φ_χ
    alpha: Array  # (pairs, degrees), without φ_χ


class Attention(NamedTuple):
    """The non-local attention inside one group of one frame."""

    model: str
    source: str
    frame: int
    groups: int  # in the frame
    atoms: Integers  # (n,), of the group shown, numbers in the frame from 0
    names: tuple[str, ...]  # (n,), element and number in the group
    degrees: tuple[int, ...]
    cutoff: float  # of the local attention, Å
    layers: tuple[LayerAttention, ...]


def beyond(layer: LayerAttention, cutoff: float) -> float:
    """The share of Σ φ_χ |α| that comes from pairs beyond the cutoff of the local attention."""
    size = layer.phi * np.abs(layer.alpha).sum(1)
    return float(size[layer.r > cutoff].sum() / size.sum()) if size.sum() > 0 else 0.0


def matrix(layer: LayerAttention, values: Array, n_atoms: int) -> Array:
    """Values of the pairs as a table with a row for each centre, (n_atoms, n_atoms); no pair is NaN."""
    table = np.full((n_atoms, n_atoms), np.nan)
    table[layer.idx_i, layer.idx_j] = values
    return table


def draw(found: Attention) -> Figure:
    """For each layer φ_χ and φ_χ α against the distance, and the table of φ_χ."""
    n = len(found.layers)
    largest = max(float(layer.r.max(initial=1.0)) for layer in found.layers)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.9 * n + 0.6, 9.4)
        rows = figure.subplots(3, n, squeeze=False, height_ratios=(1, 1, 1.5))
        for k, layer in enumerate(found.layers):
            near, weights, _ = rows[:, k]
            near.plot(layer.r, layer.phi, ".", color=colour(0), markersize=4, alpha=0.6)
            near.set(title=f"layer {k + 1}", ylabel=r"$\varphi_\chi$ / 1", ylim=(0, 1.05))
            for d, degree in enumerate(found.degrees):
                style = {"color": colour(d), "markersize": 4, "alpha": 0.6, "label": f"l = {degree}"}
                weights.plot(layer.r, layer.phi * layer.alpha[:, d], ".", **style)
            share = 100 * beyond(layer, found.cutoff)
            weights.set(title=f"{share:.0f} % lie beyond the cutoff", ylabel=r"$\varphi_\chi\,\alpha$ / 1")
            for axes in (near, weights):
                axes.axvline(found.cutoff, color=GREY, linewidth=1, linestyle=":")
                axes.set(xlabel="r / Å", xlim=(0, 1.03 * largest))
        rows[1, -1].legend(frameon=True, markerscale=2, handletextpad=0.1)
        draw_tables(figure, rows[2], found)
        which = f"group of {len(found.names)} atoms" if found.groups > 1 else f"{len(found.names)} atoms"
        title = f"{found.model} in {Path(found.source).name}, frame {found.frame}, {which}"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def draw_tables(figure: Figure, row: Any, found: Attention) -> None:
    """φ_χ of each pair in each layer; rows are the atoms that attend, columns those attended to."""
    names = found.names
    for axes, layer in zip(row, found.layers, strict=True):
        values = matrix(layer, layer.phi, len(names))
        image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axes.grid(visible=False)
        axes.set(xlabel="attends to atom", ylabel="atom")
        if len(names) <= MAX_NAMED:
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=list(row), shrink=0.75, label=r"$\varphi_\chi$ / 1 (white: not neighbors)")


def as_document(found: Attention) -> dict[str, object]:
    """Everything as plain values."""
    layers = [
        layer._asdict()
        | {
            "pairs": len(layer.r),
            "share_beyond_cutoff": beyond(layer, found.cutoff),
            "mean_sum_of_phi": float(layer.phi.sum()) / len(found.names),
        }
        for layer in found.layers
    ]
    return as_json({"units": UNITS} | found._asdict() | {"layers": layers})


def write_attention(found: Attention, picture: Path, numbers: Path) -> None:
    """Write the picture (PNG) and the numbers (JSON).

    Raises:
        So3kError: a file cannot be written.
    """
    figure = draw(found)
    with atomic(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    with atomic(numbers) as temporary:
        temporary.write_text(json.dumps(as_document(found), ensure_ascii=False) + "\n", encoding="utf-8")
