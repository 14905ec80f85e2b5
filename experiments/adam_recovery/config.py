"""The options of the experiment."""

from dataclasses import dataclass

from beliefnav import inference
from experiments.options import Options


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Recover the root of Adam from beliefs about simulated landscapes, and look beyond it.

    The tolerances of the claims are those of the full run in a quick one too.
    """

    QUICK = {
        "num_params": 500,
        "num_steps": 1000,
        "sampled_params": 12,
        "sampled_steps": 100,
        "num_warmup": 40,
        "num_samples": 40,
        "num_chains": 2,
        "max_tree_depth": 3,
        "problems": 2000,
        "network_steps": 60,
        "seeds": 1,
        "grid": 121,
    }
    LEAST = {
        "num_params": 100,
        "num_steps": 500,
        "sampled_params": 4,
        "sampled_steps": 2 * inference.MIN_STEPS,
        "num_warmup": 50,
        "num_samples": 50,
        "num_chains": 2,
        "max_tree_depth": 1,
        "problems": 1000,
        "network_steps": 1,
        "seeds": 1,
        "grid": 121,
    }

    num_params: int = 2000
    """Coordinates of a simulated stream."""
    num_steps: int = 2000
    """Steps of a simulated stream."""
    sampled_params: int = 12
    """Coordinates of each of four groups that NUTS is run on."""
    sampled_steps: int = 200
    """Steps of their streams."""
    num_warmup: int = 300
    """Adaptation steps of a chain of NUTS."""
    num_samples: int = 600
    """Draws of a chain."""
    num_chains: int = 4
    """Chains for every coordinate."""
    max_tree_depth: int = 6
    """Largest depth of a tree of NUTS."""
    problems: int = 20_000
    """Quadratics on which plans on means are compared with means of plans."""
    network_steps: int = 600
    """Steps on the digits."""
    seeds: int = 3
    """Networks that are trained with every rule."""
    grid: int = 241
    """Positions, and beliefs, of the grid on which the dual control problem is solved."""
