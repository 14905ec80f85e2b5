"""Slow, obvious oracles in float64 numpy and scipy: they share no code with what they check.

All of them take one stream of one entry, [step]; `per_entry` maps them over a recorded array.
"""

from tests.oracles.algorithms import full_ballistic, ivon, power, shampoo, von
from tests.oracles.gradient import (
    Gaussian,
    local_level,
    local_level_conditioned,
    local_level_covariance,
    ornstein_uhlenbeck,
    ornstein_uhlenbeck_covariance,
    wiener,
)
from tests.oracles.learned_noise import Secant, UnknownNoise, secant, unknown_noise
from tests.oracles.linear_gaussian import (
    Joint,
    LinearModel,
    joint,
    joint_per_entry,
    local_level_model,
    optimum_model,
    ornstein_uhlenbeck_model,
    regression,
    secant_model,
    student_log_likelihood,
    transient_model,
    transient_variances,
)
from tests.oracles.paths import least_action, path_action, path_curvature, path_gradient
from tests.oracles.planning import (
    LQ,
    Follower,
    cheapest_follower,
    cheapest_velocity,
    discounted_integral,
    has_lq_solution,
    lq_path,
    lq_solution,
    planned_path,
    planning_gain,
    switching_cost,
)
from tests.oracles.second_moment import (
    Precision,
    PrecisionGrid,
    precision_path_log_density,
    precision_walk,
    precision_walk_grid,
)
from tests.oracles.streams import discounted, nuts, per_entry, random_stream, standard_errors
from tests.oracles.switching import (
    Patterns,
    Segments,
    Switching,
    Tasks,
    kept_run_lengths,
    one_task,
    positions,
    segments,
    steady_linear_error,
    switch_patterns,
    switching_recording,
    switching_streams,
    tasks,
)
