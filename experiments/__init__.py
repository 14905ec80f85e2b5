"""Experiments: one folder a claim. ``python -m experiments`` lists them."""

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
    "certainty",
    "evidence",
    "no_rate",
    "inverse",
    "tasks",
    "device_check",
)
