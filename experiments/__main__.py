"""``python -m experiments`` lists the experiments, ``python -m experiments NAME`` runs one."""

import importlib
import sys

import tyro

EXPERIMENTS = ("classify", "double_well", "horizons", "geometry", "curvature", "device_check")


def main(arguments: list[str]) -> None:
    """Run the experiment that the first argument names, or list them all."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m experiments NAME [options]; NAME --help lists the options\n")
        for name in EXPERIMENTS:
            doc = importlib.import_module(f"experiments.{name}").__doc__ or ""
            print(f"  {name:<14}{doc.splitlines()[0]}")
        return
    name, *options = arguments
    if name not in EXPERIMENTS:
        sys.exit(f"Unknown experiment {name!r}; known are: {', '.join(EXPERIMENTS)}.")
    module = importlib.import_module(f"experiments.{name}")
    config = tyro.cli(module.Config, args=options, prog=f"python -m experiments {name}")
    try:
        module.run(config)
    except FileNotFoundError as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
