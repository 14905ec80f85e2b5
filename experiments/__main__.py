"""``python -m experiments`` lists the experiments, ``python -m experiments NAME`` runs one."""

import sys

from experiments import command_line

EXPERIMENTS = (
    "classify",
    "double_well",
    "horizons",
    "geometry",
    "curvature",
    "gradient_noise",
    "adam_recovery",
    "interpolation",
    "task_switch",
    "plasticity",
    "device_check",
)

if __name__ == "__main__":
    command_line.main("experiments", "experiment", EXPERIMENTS, sys.argv[1:])
