"""Data: files to frames, frames to splits, statistics and batches."""

from so3k_md.data.batches import Batch, Dataset, Targets, batches, to_graph, to_targets
from so3k_md.data.frames import Frame, require_elements, require_labels
from so3k_md.data.read import read_frames
from so3k_md.data.splits import Split, make_split, read_indices
from so3k_md.data.statistics import Statistics, fit_statistics, force_scale

__all__ = [
    "Batch",
    "Dataset",
    "Frame",
    "Split",
    "Statistics",
    "Targets",
    "batches",
    "fit_statistics",
    "force_scale",
    "make_split",
    "read_frames",
    "read_indices",
    "require_elements",
    "require_labels",
    "to_graph",
    "to_targets",
]
