"""Slow, obvious oracles in float64 numpy and scipy: they share no code with what they check.

All of them take one stream of one entry, [step]; `per_entry` maps them over a recorded array.
"""

from tests.oracles.algorithms import *
from tests.oracles.averages import *
from tests.oracles.drift import *
from tests.oracles.evidence import *
from tests.oracles.gradient import *
from tests.oracles.learned_noise import *
from tests.oracles.linear_gaussian import *
from tests.oracles.paths import *
from tests.oracles.planning import *
from tests.oracles.second_moment import *
from tests.oracles.streams import *
from tests.oracles.switching import *
