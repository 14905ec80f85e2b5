"""``python -m experiments.benchmarks`` lists the benchmarks, ``... NAME`` runs one."""

import importlib
import sys

import tyro

BENCHMARKS = ("filters", "optimizer_step")


def main(arguments: list[str]) -> None:
    """Run the benchmark that the first argument names, or list them all."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m experiments.benchmarks NAME [options]; NAME --help for options\n")
        for name in BENCHMARKS:
            doc = importlib.import_module(f"experiments.benchmarks.{name}").__doc__ or ""
            print(f"  {name:<16}{doc.splitlines()[0]}")
        return
    name, *options = arguments
    if name not in BENCHMARKS:
        sys.exit(f"Unknown benchmark {name!r}; known are: {', '.join(BENCHMARKS)}.")
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    prog = f"python -m experiments.benchmarks {name}"
    module.run(tyro.cli(module.Config, args=options, prog=prog))


if __name__ == "__main__":
    main(sys.argv[1:])
