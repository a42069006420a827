"""`so3k-md info`."""

import argparse

HELP = "say what a model file is"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", help="checkpoint, exported .pt, or name of a shipped model")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the metadata of a model."""
    import json

    from so3k_md.checkpoint import is_torchscript, load, metadata, resolve_model
    from so3k_md.export.torchscript import describe

    path = resolve_model(args.model)
    model = load(path)
    exported = is_torchscript(path)
    facts = metadata(model) if exported else describe(model, metadata(model).get("name", path.stem))
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{path}: {'exported model' if exported else 'checkpoint'}")
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"    {name}: {item}")
        else:
            print(f"{key}: {value}")
