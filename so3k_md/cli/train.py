"""`so3k-md train`."""

import argparse
from pathlib import Path

HELP = "train a model from a YAML file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="YAML file with the sections model, data, loss, train")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="values that replace those of the file"
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="folder of the run (default: the name of the YAML file)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint in the folder"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start again in a folder that contains a run"
    )


def run(args: argparse.Namespace) -> None:
    """Train, and print the path of the best checkpoint."""
    from so3k_md.train.config import read_config
    from so3k_md.train.trainer import train

    words = [args.config, *args.overrides]
    # the file is the word that sets no value, wherever it stands
    file = next((word for word in words if "=" not in word or Path(word).is_file()), args.config)
    words.remove(file)
    config = read_config(file, words)
    folder = Path(args.output) if args.output else Path(Path(file).stem)
    best = train(config, folder, resume=args.resume, overwrite=args.overwrite)
    print(f"best checkpoint: {best}; export it with: so3k-md export {best} -o {folder.name}.pt")
