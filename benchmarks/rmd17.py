"""Errors on rMD17: ten molecules, published split 01, 950 + 50 frames, beside published figures.

    python benchmarks/rmd17.py --data FOLDER --hours 3 --molecules ethanol malonaldehyde
    python benchmarks/rmd17.py --table

The folder has rmd17_MOLECULE_train01.npz and rmd17_MOLECULE_test01_public.npz. Trainings continue where they
stopped, and results are kept in benchmarks/results/rmd17.json as they come. Mean absolute errors on the test
frames, energy in meV and forces in meV/Å.
"""

import argparse

from engines import markdown
from studies import RESULTS, Study, main, read, shown

# Energy and forces of MACE, Allegro and NequIP (l = 3), and forces of PaiNN, on 950 + 50 frames: Table 1 of
# Batatia et al., NeurIPS 2022 (arXiv:2206.07697).
PUBLISHED = {
    "aspirin": ("2.2 / 6.6", "2.3 / 7.3", "2.3 / 8.2", "6.9 / 16.1"),
    "azobenzene": ("1.2 / 3.0", "1.2 / 2.6", "0.7 / 2.9", "-"),
    "benzene": ("0.4 / 0.3", "0.3 / 0.2", "0.04 / 0.3", "-"),
    "ethanol": ("0.4 / 2.1", "0.4 / 2.1", "0.4 / 2.8", "2.7 / 10.0"),
    "malonaldehyde": ("0.8 / 4.1", "0.6 / 3.6", "0.8 / 5.1", "3.9 / 13.8"),
    "naphthalene": ("0.5 / 1.6", "0.2 / 0.9", "0.9 / 1.3", "5.1 / 3.6"),
    "paracetamol": ("1.3 / 4.8", "1.5 / 4.9", "1.4 / 5.9", "-"),
    "salicylic": ("0.9 / 3.1", "0.9 / 2.9", "0.7 / 4.0", "4.9 / 9.1"),
    "toluene": ("0.5 / 1.5", "0.4 / 1.8", "0.3 / 1.6", "4.2 / 4.4"),
    "uracil": ("0.5 / 2.1", "0.6 / 1.8", "0.4 / 3.1", "4.5 / 6.1"),
}
MODELS = {
    "2022": {"preset": "so3krates-2022"},
    "2024": {"preset": "euclidean-2024"},
}
LABELS = {"energy_key": "E", "forces_key": "F"}


def studies(args: argparse.Namespace) -> list[Study]:
    """One training for each molecule and model."""
    return [study(molecule, model, args) for molecule in args.molecules for model in args.models]


def study(molecule: str, model: str, args: argparse.Namespace) -> Study:
    """One training on a molecule."""
    return Study(
        name=f"{molecule}-{model}",
        model=MODELS[model],
        data={
            "train": str(args.data / f"rmd17_{molecule}_train01.npz"),
            "n_train": 950,
            "n_valid": 50,
            **LABELS,
        },
        train={"epochs": args.epochs, "valid_every": 5},
        tests={"test": str(args.data / f"rmd17_{molecule}_test01_public.npz")},
        keys=LABELS,
    )


def table() -> str:
    """Markdown: our errors beside the published ones."""
    found = read(RESULTS / "rmd17.json")
    rows = {
        molecule: [*(shown(found.get(f"{molecule}-{model}"), "test") for model in MODELS), *published]
        for molecule, published in PUBLISHED.items()
    }
    columns = [*(f"so3k-md {model}" for model in MODELS), "MACE", "Allegro", "NequIP", "PaiNN"]
    return markdown("E meV / F meV/Å", columns, rows)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of molecules and models."""
    parser.add_argument("--molecules", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--epochs", type=int, default=1000)


if __name__ == "__main__":
    main(__doc__, "rmd17", studies, table, add)
