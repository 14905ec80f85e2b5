"""``python -m experiments.benchmarks`` lists the benchmarks, ``... NAME`` runs one.

``NAME --publish`` brings the numbers of a finished run into the README of the benchmarks.
"""

import sys

from experiments import command_line
from experiments.benchmarks import BENCHMARKS

if __name__ == "__main__":
    with command_line.piped():
        command_line.main("experiments.benchmarks", "benchmark", BENCHMARKS, sys.argv[1:])
