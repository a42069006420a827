"""The words that the exported file and its readers share; the C++ side uses the same ones."""

FORMAT_VERSION = 1
STAGES = ["geometry", "embed", "initial_chi", "attend", "update", "readout"]
ATTRIBUTES = [
    "cutoff",
    "elements",
    "n_layers",
    "features",
    "chi_width",
    "chi_from_neighbours",
    "nonlocal_kind",
    "format_version",
    "metadata",
]
EXTRA_FILE = "so3k.json"
