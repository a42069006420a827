"""Errors beyond the training data: 3BPA and acetylacetone trained at 300 K and judged at higher temperatures.

    python benchmarks/extrapolation.py --data FOLDER --hours 3
    python benchmarks/extrapolation.py --table

The folder has 3bpa/ and acac/ with the files named in SETS (Kovács et al., JCTC 17, 7696 (2021); Batatia et
al., arXiv:2205.06643). The published protocol: 500 frames at 300 K, of which 50 validate. Mean absolute
errors, energy in meV and forces in meV/Å.
"""

import argparse

from engines import markdown
from studies import RESULTS, Study, main, read, shown

SETS = {
    "3bpa": ("iso_atoms.xyz", {"300, 600 and 1200 K": "test_mixedT_public.xyz"}),
    "acac": (
        "isolated_atoms.xyz",
        {
            "300 K": "test_MD_300K_public.xyz",
            "600 K": "test_MD_600K_public.xyz",
            "torsion": "test_dihedral_public.xyz",
            "H transfer": "test_H_transfer_public.xyz",
        },
    ),
}
MODELS = {
    "2022": {"preset": "so3krates-2022", "layers": 3},
    "2024": {"preset": "euclidean-2024"},
}


def studies(args: argparse.Namespace) -> list[Study]:
    """One training for each molecule and model."""
    return [study(molecule, model, args) for molecule in args.molecules for model in MODELS]


def study(molecule: str, model: str, args: argparse.Namespace) -> Study:
    """One training at 300 K."""
    folder, (atoms, tests) = args.data / molecule, SETS[molecule]
    return Study(
        name=f"{molecule}-{model}",
        model=MODELS[model],
        data={
            "train": str(folder / "train_300K.xyz"),
            "isolated_atoms": str(folder / atoms),
            "n_train": 450,
            "n_valid": 50,
        },
        train={"epochs": args.epochs, "valid_every": 5},
        tests={name: str(folder / file) for name, file in tests.items()},
        keys={},
    )


def table() -> str:
    """Markdown: one row for each set of test frames, one column for each model."""
    found = read(RESULTS / "extrapolation.json")
    rows = {
        f"{molecule}, {name}": [shown(found.get(f"{molecule}-{model}"), name) for model in MODELS]
        for molecule, (_, tests) in SETS.items()
        for name in tests
    }
    return markdown("E meV / F meV/Å", [f"so3k-md {model}" for model in MODELS], rows)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of molecules and epochs."""
    parser.add_argument("--molecules", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--epochs", type=int, default=1000)


if __name__ == "__main__":
    main(__doc__, "extrapolation", studies, table, add)
