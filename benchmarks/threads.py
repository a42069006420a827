"""Time of a molecular dynamics step with several threads against one, measured in one run.

    python benchmarks/threads.py --sizes 108 504 2016 --threads 2 --rounds 3 --output threads.json

The structures and engines of engines.py. The numbers of threads take turns, and a speed-up is the median of
those of the rounds.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from engines import CASES, SIZES, markdown, measure

ENGINES = ("ASE", "OpenMM TorchForce", "LAMMPS 1 rank")


def speedup(rounds: list[tuple[float, float]]) -> float:
    """Median over the rounds of the time with one thread over that with several."""
    return statistics.median(one / several for one, several in rounds)


def table(results: dict[str, dict[str, list[tuple[float, float]]]], threads: int) -> str:
    """Markdown: ms/step with one and with several threads, and the speed-up.

    Args:
        results: of each engine, by number of atoms: ms with one and with several threads, of each round.
        threads: their number.
    """
    sizes = list(next(iter(results.values())))
    rows: dict[str, list[str]] = {}
    for engine, by_size in results.items():
        cells = rows.setdefault(engine, [])
        for rounds in by_size.values():
            one, several = (statistics.median(times) for times in zip(*rounds, strict=True))
            cells.append(f"{one:.1f} ms, {threads} threads {several:.1f} ms, {speedup(rounds):.2f}×")
    return markdown("engine", [f"{n} atoms" for n in sizes], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ethanol-rmd17", help="exported model or its name")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(CASES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[108, 504, 2016], choices=list(SIZES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", help="JSON file for all single results")
    args = parser.parse_args()
    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for engine in args.engines:
        for n_atoms in args.sizes:
            rounds = results.setdefault(engine, {}).setdefault(str(n_atoms), [])
            for _ in range(args.rounds):
                one, several = (
                    measure(engine, n_atoms, args.model, "cpu", threads)["ms"]
                    for threads in (1, args.threads)
                )
                rounds.append((one, several))
                print(f"{engine}, {n_atoms} atoms: {one:.1f} and {several:.1f} ms", file=sys.stderr)
    print(table(results, args.threads))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
