"""`so3k-md finetune` adapts a trained model, such as SO3LR, to new data."""

import argparse

HELP = "adapt a trained model, such as SO3LR, to new data"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("model", help="checkpoint, exported file, or the name of a bundled model")
    parser.add_argument("data", help="new frames: extended XYZ or npz")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings, as in a training file"
    )
    parser.add_argument(
        "--strategy",
        choices=("full", "lora", "first", "last", "head"),
        help="weights to train: full (default), lora (changes of low rank), first (embeddings and first "
        "layer), last (last layer and heads), head (heads)",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="frames that are mixed in, with labels of the start",
    )
    parser.add_argument("--test", metavar="FILE", help="more frames of the new data for the table")
    parser.add_argument("--old", metavar="FILE", help="frames of the old data for the table")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder of the run (default: name of DATA)")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint in the folder"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start again in a folder that contains a run"
    )


def run(args: argparse.Namespace) -> None:
    """Fine-tune a model, print its errors before and after, and the path of the best checkpoint."""
    from pathlib import Path

    from so3k_md.checkpoint import load
    from so3k_md.data import read_frames
    from so3k_md.data.read import READING
    from so3k_md.train.config import override
    from so3k_md.train.finetune import compare, finetune_config, table
    from so3k_md.train.parallel import is_first_process
    from so3k_md.train.prepare import load_frames
    from so3k_md.train.trainer import train

    given = {"strategy": args.strategy, "replay": args.replay}
    arguments = [*(f"start.{key}={value}" for key, value in given.items() if value), *args.overrides]
    named = override({}, arguments)["data"]
    reading = {name: named[name] for name in READING if name in named}
    config = finetune_config(args.model, args.data, len(read_frames(args.data, **reading)), arguments)
    others = {path: read_frames(path, **reading) for path in (args.test, args.old) if path}
    folder = Path(args.output) if args.output else Path(Path(args.data).stem)
    best = train(config, folder, resume=args.resume, overwrite=args.overwrite)
    if not is_first_process():
        return
    sets = {"validation": load_frames(config.data, config.loss).valid} | {
        Path(path).name: frames for path, frames in others.items()
    }
    comparisons = compare(load(args.model), load(best), sets)
    print(table(comparisons))
    print(f"best checkpoint: {best}; export it with: so3k-md export {best} -o {folder.name}.pt")
