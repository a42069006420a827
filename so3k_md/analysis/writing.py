"""Writes reports: HTML for people, JSON for programs."""

import json
from collections.abc import Sequence
from pathlib import Path

from so3k_md.analysis.page import render
from so3k_md.analysis.results import UNITS, Analysis, as_json
from so3k_md.errors import So3kError
from so3k_md.files import atomic, check_output


def write_report(
    analyses: Analysis | Sequence[Analysis],
    html: str | Path,
    json_file: str | Path | None = None,
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write one report of one or several trajectories, which share the pictures.

    Args:
        analyses: results of `analyze`; several must have different labels.
        html: file of the page, which needs no other files.
        json_file: file of the numbers as JSON; None writes none.
        title: heading of the page; the labels otherwise.
        overwrite: replace files that exist.

    Raises:
        So3kError: a file exists or cannot be written, or two labels are the same.
    """
    several = (analyses,) if isinstance(analyses, Analysis) else tuple(analyses)
    labels = [analysis.label for analysis in several]
    check_labels(labels)
    outputs = [check_output(path, overwrite) for path in (html, json_file) if path is not None]
    texts = [
        render(several, title or " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))),
        json.dumps(summary(several), ensure_ascii=False),
    ]
    for path, text in zip(outputs, texts, strict=False):
        with atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def check_labels(labels: Sequence[str]) -> None:
    """Refuse a report without trajectories, and two trajectories of the same label."""
    if not labels:
        raise So3kError("no trajectory to report: give at least one")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise So3kError(f"two trajectories have the label {twice}: give different names with --label")


def summary(analyses: Sequence[Analysis]) -> dict[str, object]:
    """The numbers for JSON: whether all runs are stable, the units, and each analysis."""
    return {
        "stable": all(analysis.stability.stable for analysis in analyses),
        "units": UNITS,
        "trajectories": [as_json(analysis) for analysis in analyses],
    }
