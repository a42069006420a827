"""`so3k-md info` prints the metadata of a model."""

import argparse

HELP = "print the metadata of a model: elements, cutoff, configuration, units, versions"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("model", help="checkpoint, exported .pt, or the name of a bundled model")
    parser.add_argument("--json", action="store_true", help="print the metadata as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the metadata as lines or as JSON."""
    import json

    from so3k_md.checkpoint import load, metadata, resolve_model
    from so3k_md.export.torchscript import describe
    from so3k_md.model import So3krates

    path = resolve_model(args.model)
    model = load(path)
    if isinstance(model, So3krates):
        facts = describe(model, metadata(model).get("name", path.stem))
    else:
        facts = metadata(model)
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{path}: {'checkpoint' if isinstance(model, So3krates) else 'exported model'}")
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"    {name}: {item}")
        else:
            print(f"{key}: {value}")
