"""`so3k-md train` trains a model from a YAML file."""

import argparse
from pathlib import Path

HELP = "train a model from a YAML file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
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
    """Train a model and print the path of the best checkpoint."""
    from so3k_md.train.config import read_config
    from so3k_md.train.parallel import is_first_process
    from so3k_md.train.trainer import train

    words = [args.config, *args.overrides]
    # the YAML file is the first word that sets no value, also after overrides
    file = next((word for word in words if "=" not in word or Path(word).is_file()), args.config)
    words.remove(file)
    config = read_config(file, words)
    folder = Path(args.output) if args.output else Path(Path(file).stem)
    best = train(config, folder, resume=args.resume, overwrite=args.overwrite)
    if not is_first_process():
        return
    print(f"best checkpoint: {best}; export it with: so3k-md export {best} -o {folder.name}.pt")
