"""Errors on rMD17 against the number of training frames and the highest degree of the SPHCs.

    python benchmarks/data_efficiency.py --data FOLDER --hours 3
    python benchmarks/data_efficiency.py --table

Published split 01 of a molecule; the first frames of the drawn order train, 50 more validate. Each training
takes the same number of steps. Mean absolute errors on the test frames, energy in meV and forces in meV/Å.
"""

import argparse

from engines import markdown
from studies import RESULTS, TRAIN, Study, main, read, shown

FRAMES = (50, 100, 200, 400, 950)
# Degrees by the highest one; 0 is the invariant twin.
DEGREES = {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 2, 3]}
LABELS = {"energy_key": "E", "forces_key": "F"}


def studies(args: argparse.Namespace) -> list[Study]:
    """One training for each highest degree and number of frames."""
    return [study(highest, n, args) for n in FRAMES for highest in DEGREES]


def study(highest: int, n: int, args: argparse.Namespace) -> Study:
    """One training with SPHCs up to a degree on some frames."""
    epochs = max(1, round(args.steps * TRAIN["batch_size"] / n))
    return Study(
        name=f"{args.molecule}-l{highest}-{n}",
        model={"preset": "euclidean-2024", "degrees": DEGREES[highest]},
        data={
            "train": str(args.data / f"rmd17_{args.molecule}_train01.npz"),
            "n_train": n,
            "n_valid": 50,
            **LABELS,
        },
        train={"epochs": epochs, "valid_every": max(1, epochs // 50)},
        tests={"test": str(args.data / f"rmd17_{args.molecule}_test01_public.npz")},
        keys=LABELS,
    )


def table() -> str:
    """Markdown: one row for each highest degree, one column for each number of frames."""
    found = read(RESULTS / "data_efficiency.json")
    molecules = sorted({name.split("-")[0] for name in found})
    rows = {
        f"{molecule}, l ≤ {highest}": [shown(found.get(f"{molecule}-l{highest}-{n}"), "test") for n in FRAMES]
        for molecule in molecules
        for highest in DEGREES
    }
    return markdown("E meV / F meV/Å", [f"{n} frames" for n in FRAMES], rows)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of molecule and steps."""
    parser.add_argument("--molecule", default="ethanol")
    parser.add_argument("--steps", type=int, default=20_000)


if __name__ == "__main__":
    main(__doc__, "data_efficiency", studies, table, add)
