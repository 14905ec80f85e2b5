"""``python -m experiments.benchmarks`` lists the benchmarks, ``... NAME`` runs one."""

import sys

from experiments import command_line

BENCHMARKS = ("averaging", "filters", "inference", "optimizer_step", "resetting")

if __name__ == "__main__":
    with command_line.piped():
        command_line.main("experiments.benchmarks", "benchmark", BENCHMARKS, sys.argv[1:])
