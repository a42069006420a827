"""The words that the exported file and its readers share; the C++ side uses the same ones."""

from so3k_md.checkpoint import EXTRA_FILE
from so3k_md.facts import Facts
from so3k_md.model import FORMAT_VERSION
from so3k_md.structure.needs import check_elements

__all__ = ["ATTRIBUTES", "EXTRA_FILE", "FORMAT_VERSION", "KERNEL_FILE", "STAGES", "check_elements"]

STAGES = [
    "geometry",
    "embed",
    "initial_chi",
    "attend",
    "update",
    "affinities",
    "shares",
    "close_repulsion",
    "readout",
    "raw_charges",
    "conserved",
    "ratios",
    "long_slopes",
    "self_slopes",
    "wave_sums",
    "wave_slopes",
    "wave_virials",
    "open_slopes",
    "gradient",
    "group_rows",
    "tiles",
    "far_pairs",
    "far_attend",
    "waves",
    "far_whole",
    "far_sums",
    "far_read",
    "support",
    "diameter",
]
ATTRIBUTES = [
    *Facts._fields,
    "cutoff",
    "n_layers",
    "features",
    "chi_width",
    "chi_from_neighbours",
    "nonlocal_kind",
    "far_reach",
    "has_totals",
    "has_zbl",
    "has_long_range",
    "format_version",
]
# the same model without weights, calling the compiled kernels; another name whenever their calls change
KERNEL_FILE = "so3k_kernels.4.pt"
