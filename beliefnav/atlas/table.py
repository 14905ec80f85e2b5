"""The rows of the atlas: each rule with what it is compared with, and what is claimed of it."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav import beliefs, control, rules, sensors, wrappers
from beliefnav.atlas import peers
from beliefnav.atlas.explaining import Wrapped, explain
from beliefnav.atlas.problems import DIAGONAL, HESSIAN, HUTCHINSON, Problem, Sensor
from beliefnav.drift import Decay
from beliefnav.objective import Objective
from beliefnav.reading import optimum
from beliefnav.rules._rule import Assumptions
from beliefnav.rules.catalogue import APPROXIMATE, CATALOGUE, EXACT, LIMIT, Peer
from beliefnav.wrappers.distance import distance_adaptation

__all__ = [
    "APPROXIMATE",
    "COMPOSED",
    "EXACT",
    "FORMULA",
    "LIMIT",
    "NO_MODEL",
    "SHIPPED",
    "Row",
    "rows",
]

Optimizer = optax.GradientTransformation

NO_MODEL = "no model known"

SHIPPED, COMPOSED, FORMULA = (
    "optax as it ships",
    "compositions of optax's parts",
    "formulas of this repository",
)
"""Who wrote what a row is compared with; a formula may stand around an optimizer of optax."""

_AT_MOST = {EXACT: 1e-12, LIMIT: 1e-3, APPROXIMATE: 1.0, NO_MODEL: 1.0}
"""Verdict -> what a deviation in float64 is claimed to be at most; room is left for machines."""


class Row(NamedTuple):
    """One rule, and what is claimed of it.

    Attributes:
        rule: its name.
        compared_with: the other implementation.
        verdict: ``exact``, ``limit``, ``approximate`` or ``no model known``.
        reason: why, if it is not exact; for a limit, of what.
        ours: from a problem, and for a limit from its small parameter, to the assumptions. Of a
            rule of which no model is known, the nearest one that has one.
        peer: from a problem to the other implementation.
        sensor: what both get as ``curvature``.
        peer_sensor: what the peer gets instead.
        order: of a limit, the power of the small parameter at which the deviation vanishes.
        problems: how many of the problems are compared on; 1 for those of the quadratic alone.
        written_by: whose the other implementation is: `SHIPPED`, `COMPOSED` or `FORMULA`.
        at_most: what the deviation in float64 is claimed to be at most; ``None``: as for others of
            the same verdict.
        read: ``(state, parameters) ->`` the parameters that are compared; ``None``: as they are.
        peer_read: the same of the peer.
        numbers: how many numbers the peer is given; of a row that is not exact ``None``.
    """

    rule: str
    compared_with: str
    verdict: str
    ours: Callable[..., Assumptions | Wrapped]
    peer: Callable[[Problem], Optimizer]
    reason: str = ""
    sensor: Sensor | None = None
    peer_sensor: Sensor | None = None
    order: float | None = None
    problems: int = 2
    written_by: str = FORMULA
    at_most: float | None = None
    read: Callable[[Any, Any], Any] | None = None
    peer_read: Callable[[Any, Any], Any] | None = None
    numbers: int | None = None

    @property
    def bound(self) -> float:
        """What the deviation in float64 is claimed to be at most."""
        return _AT_MOST[self.verdict] if self.at_most is None else self.at_most


def exact(
    rule: str,
    compared_with: str,
    assumptions: Assumptions | Wrapped,
    peer: Optimizer,
    sensor: Sensor | None = None,
    **options: Any,
) -> Row:
    """A rule that is equal to its peer, whatever the problem."""
    return Row(
        rule,
        compared_with,
        EXACT,
        lambda _: assumptions,
        lambda _: peer,
        sensor=sensor,
        **options,
    )


def differs(
    rule: str,
    compared_with: str,
    verdict: str,
    assumptions: Assumptions | Wrapped,
    peer: Optimizer,
    reason: str,
    sensor: Sensor | None = None,
    **options: Any,
) -> Row:
    """A rule that is not equal to its peer, for a reason."""
    return Row(
        rule,
        compared_with,
        verdict,
        lambda _: assumptions,
        lambda _: peer,
        reason,
        sensor=sensor,
        **options,
    )


def textbook(
    rule: str,
    compared_with: str,
    peer: Callable[..., Optimizer],
    sensor: Sensor | None = None,
    **options: Any,
) -> Row:
    """The demonstration of a rule in the catalogue, equal to a peer with the same arguments."""
    entry = CATALOGUE[rule]
    ours, theirs = entry.rule.assumptions(**entry.arguments), peer(**entry.arguments)
    bound = inspect.signature(entry.rule).bind(**entry.arguments)
    bound.apply_defaults()
    numbers = sum(type(value) in (int, float) for value in bound.arguments.values())
    return exact(rule, compared_with, ours, theirs, sensor, numbers=numbers, **options)


def recovered() -> list[Row]:
    """Rules that optax has, and variants of them."""
    adam = rules.adam.assumptions(0.01)
    diffuse = beliefs.independent(
        gradient=beliefs.Transient(0.9, 0.09, diffuse=True), curvature=beliefs.PrecisionWalk(0.999)
    )
    entries = CATALOGUE.values()
    return [
        *(
            textbook(
                entry.rule.__name__,
                entry.peer.name,
                entry.peer.build,
                written_by=COMPOSED if entry.peer.composed else SHIPPED,
            )
            for entry in entries
            if isinstance(entry.peer, Peer)
        ),
        exact(
            "heavy ball",
            "optax.sgd(momentum)",
            rules.sgd.assumptions(0.005, momentum=0.9),
            optax.sgd(0.005, momentum=0.9),
            written_by=SHIPPED,
            numbers=2,
        ),
        exact(
            "nesterov",
            "optax.sgd(momentum, nesterov)",
            rules.sgd.assumptions(0.005, momentum=0.9, nesterov=True),
            optax.sgd(0.005, momentum=0.9, nesterov=True),
            written_by=SHIPPED,
            numbers=2,
        ),
        differs(
            "nadam with a prior",
            "optax.nadam",
            APPROXIMATE,
            adam._replace(belief=diffuse),
            optax.nadam(0.01),
            "NAdam corrects the bias of its two terms apart; the forecast from a diffuse prior is "
            "unbiased from the first step on. The same in the steady state.",
            written_by=SHIPPED,
        ),
        differs(
            "amsgrad",
            "optax.amsgrad",
            NO_MODEL,
            adam,
            optax.amsgrad(0.01),
            "The largest of past means of Adam's curvature is a filter that takes the same steps, "
            "but of no known model: evidence for a smaller curvature is ignored. The deviation is "
            "that of adam.",
            written_by=SHIPPED,
        ),
        differs(
            "lamb",
            "optax.lamb",
            NO_MODEL,
            adam,
            optax.lamb(0.01),
            "Its trust ratio |params| / |step| is a curvature that is read off parameters and "
            "posterior, as any factor of a step is; no known model of gradients has it. The "
            "deviation is that of adam.",
            written_by=SHIPPED,
        ),
    ]


def anchors() -> list[Row]:
    """Rules that know where the parameters started, or that weights decay."""
    return [
        textbook("l2_init", "optax.sgd on the penalised loss", peers.l2_init),
        textbook(
            "adam_toward_start", "optax.adam and a decay toward the start", peers.adam_toward_start
        ),
        textbook("resetting", "the approach of a shrunk set-point", peers.set_point),
        differs(
            "resetting",
            "adam_toward_start",
            APPROXIMATE,
            rules.resetting.assumptions(0.01, hazard=0.1, discount=0.0),
            peers.adam_toward_start(0.01, 0.1),
            "A decay of one strength for all weights does not know which are curved; the derived "
            "one displaces the equilibrium less where the loss is steeper.",
        ),
        textbook("hazard_filter", "mean and variance, written out", peers.hazard_filter),
        Row(
            "countering",
            "optax.adam",
            LIMIT,
            lambda _, s: rules.countering.assumptions(0.01, s),
            lambda _: optax.adam(0.01, eps=0.0),
            "of weak decay s: what is left of one that is planned for is of the order s^2 where "
            "the loss is curved.",
            order=2.0,
            written_by=SHIPPED,
        ),
        differs(
            "countering",
            "optax.adamw(weight_decay=0.1)",
            APPROXIMATE,
            rules.countering.assumptions(0.01, 0.1),
            optax.adamw(0.01, weight_decay=0.1),
            "AdamW's decay is a drift that the controller ignores; this one counters it.",
            written_by=SHIPPED,
        ),
    ]


def geometries() -> list[Row]:
    """Rules with a metric or a matrix of curvature."""

    def damped(matrix: Array) -> Array:
        return matrix + 0.1 * jnp.eye(len(matrix))

    def natural(kind: Callable[..., Any], finish: Callable[..., Any]) -> Any:
        def ours(problem: Problem) -> Assumptions:
            metric = problem.fisher(kind)
            return rules.natural_gradient.assumptions(0.05, lambda p: finish(metric(p)))

        return ours

    def whole(problem: Problem) -> Optimizer:
        metric = problem.fisher(sensors.fisher)
        return peers.natural_gradient(0.05, lambda p: damped(metric(p)))

    def factors(tree: Any) -> Any:
        return jax.tree.map(
            lambda k: beliefs.Kronecker(damped(k.left), damped(k.right)),
            tree,
            is_leaf=lambda x: isinstance(x, beliefs.Kronecker),
        )

    def product(problem: Problem) -> Optimizer:
        metric = problem.fisher(sensors.fisher_kronecker)

        def matrix(params: Any) -> Array:
            blocks = metric(params).values()
            return peers.block_diagonal([(damped(k.left), damped(k.right)) for k in blocks])

        return peers.natural_gradient(0.05, matrix)

    def held(_: Problem, s: Any) -> Assumptions:
        slowest = math.sqrt(0.05**2 + 0.1) - 0.05  # rate of the plan at the lowest curvature, 0.1
        return rules.newton.assumptions(1.0, -jnp.log(s) / slowest, 0.1)

    return [
        Row(
            "natural_gradient",
            "a linear solve with the Fisher matrix",
            EXACT,
            natural(sensors.fisher, damped),
            whole,
            numbers=2,
        ),
        Row(
            "natural_gradient, Kronecker",
            "a linear solve with the product",
            EXACT,
            natural(sensors.fisher_kronecker, factors),
            product,
            numbers=2,
        ),
        Row(
            "natural_gradient, Kronecker",
            "a linear solve with the Fisher matrix",
            APPROXIMATE,
            natural(sensors.fisher_kronecker, factors),
            whole,
            "The Fisher matrix is no Kronecker product, and arrays share information.",
        ),
        Row(
            "natural_gradient, diagonal",
            "a linear solve with the Fisher matrix",
            APPROXIMATE,
            natural(sensors.fisher_diagonal, lambda d: jax.tree.map(lambda x: x + 0.1, d)),
            whole,
            "Parameters share information.",
        ),
        textbook("newton", "a solve where the Hessian is positive", peers.newton, HESSIAN),
        Row(
            "newton, finite time step",
            "a solve where the Hessian is positive",
            LIMIT,
            held,
            lambda _: peers.newton(1.0),
            "of a long plan, s = exp(-rho dt) with the slowest rate rho of the closed loop.",
            sensor=HESSIAN,
            order=1.0,
            problems=1,
        ),
        Row(
            "newton, diagonal",
            "a solve where the Hessian is positive",
            APPROXIMATE,
            lambda _: rules.newton.assumptions(0.05, diagonal=True),
            lambda _: peers.newton(0.05),
            "Parameters are coupled.",
            sensor=DIAGONAL,
            peer_sensor=HESSIAN,
            at_most=2.0,
        ),
        differs(
            "sophia_like",
            "optax.contrib.sophia",
            APPROXIMATE,
            rules.sophia_like.assumptions(**CATALOGUE["sophia_like"].arguments),
            peers.sophia(0.02),
            "Sophia cuts Newton's step off at a fixed size: no quadratic cost of moving does.",
            DIAGONAL,
            written_by=SHIPPED,
        ),
        textbook(
            "full_ballistic",
            "an eigendecomposition of the second moments",
            peers.full_ballistic,
            at_most=1e-11,  # the inverse root amplifies rounding where eigenvalues are small
        ),
        textbook("shampoo", "algorithm 1 of its paper", peers.shampoo),
        differs(
            "shampoo",
            "full-matrix AdaGrad of every array",
            APPROXIMATE,
            rules.shampoo.assumptions(0.1),
            peers.full_matrix_adagrad(0.1, 1e-4),
            "The sum of all products of gradients is no Kronecker product.",
        ),
        textbook("muon", "singular values set to 1", peers.orthogonalised),
        exact(
            "muon",
            "optax.contrib.scale_by_muon, iterated to convergence",
            rules.muon.assumptions(0.003, 0.0, nesterov=False),
            peers.muon(0.003, ns_coeffs=(1.875, -1.25, 0.375), ns_steps=20),
            written_by=COMPOSED,
            numbers=5,
        ),
        differs(
            "muon",
            "optax.contrib.scale_by_muon",
            APPROXIMATE,
            rules.muon.assumptions(0.003, 0.0, nesterov=False),
            peers.muon(0.003),
            "Its five Newton-Schulz steps with their coefficients end between singular values of "
            "about 0.7 and 1.2, not at 1.",
            written_by=COMPOSED,
        ),
    ]


def variational() -> list[Row]:
    """Rules of variational inference."""
    rates, unscaled, positive = (
        "equation (8) of Khan et al. (2018), with two rates",
        "algorithm 1 of Shen et al. (2024), unscaled rate",
        "equation (12) of Khan and Rue (2023), S positive",
    )
    return [
        textbook("von", rates, peers.von, HUTCHINSON),
        textbook("ivon", unscaled, peers.ivon, HUTCHINSON),
        textbook("bayesian_learning_rule", positive, peers.bayesian_learning_rule, HESSIAN),
    ]


def distances() -> list[Row]:
    """Rules without a learning rate, whose steps are as long as the optimum may be far."""

    def adapted(b1: float = 0.9, b2: float = 0.999) -> Wrapped | Assumptions:
        inner = rules.adam.assumptions(1.0, b1, b2, eps=0.0)
        return explain(distance_adaptation, inner, guess=1e-2, prior_scale=1.0)

    return [
        exact(
            "distance adaptation, signs",
            "optax.contrib.prodigy(betas=(0, 0))",
            adapted(0.0, 0.0),
            optax.contrib.prodigy(betas=(0.0, 0.0), beta3=0.999**0.5, eps=0.0, estim_lr0=1e-2),
            written_by=SHIPPED,
            numbers=5,
            at_most=1e-8,
            reason="Rounding grows with a distance that is learned from the steps it makes.",
        ),
        differs(
            "learning_rate_free",
            "optax.contrib.prodigy",
            APPROXIMATE,
            adapted(),
            optax.contrib.prodigy(estim_lr0=1e-2),
            "Prodigy weighs the moments of Adam by the distance too, and the gradients of its "
            "bound by Adam's bias corrections: neither is a belief about a gradient. The rule "
            "without its average.",
            written_by=SHIPPED,
        ),
        differs(
            "learning_rate_free",
            "optax.contrib.dadapt_adamw",
            APPROXIMATE,
            adapted(),
            optax.contrib.dadapt_adamw(estim_lr0=1e-2),
            "D-Adaptation is the mode of the same posterior with a looser bound: it knows the "
            "path from sums of gradients alone, and weighs gradients by the distance, not by its "
            "square.",
            written_by=SHIPPED,
        ),
        differs(
            "learning_rate_free",
            "optax.contrib.dog",
            NO_MODEL,
            adapted(),
            optax.contrib.dog(init_step=("distance", 1e-2)),
            "How far the parameters have been is likely under no distance more than under "
            "another: they may have passed the optimum. The deviation is that of the rule "
            "without its average.",
            written_by=SHIPPED,
            at_most=2.0,
        ),
    ]


def averages() -> list[Row]:
    """Averages of iterates, compared in what they say to evaluate."""

    def averaged(rule: Any, memory: Any, every: int = 1, **options: Any) -> Wrapped | Assumptions:
        return explain(wrappers.iterate_averaging, rule, memory=memory, every=every, **options)

    def spread(state: Any, params: Any) -> Any:
        return state.believed_optimum(params)[1]

    adam, sgd = rules.adam.assumptions(0.01), rules.sgd.assumptions(0.05)
    inner, read = optax.adam(0.01), {"read": optimum, "peer_read": peers.average}
    return [
        exact(
            "adam, plain average",
            "the mean of all iterates (Polyak and Ruppert)",
            averaged(adam, beliefs.LocalLevel(1.0)),
            peers.plain_average(inner),
            numbers=4,
            **read,
        ),
        exact(
            "adam, polynomial average",
            "polynomial-decay averaging of Shamir and Zhang (2013)",
            averaged(adam, beliefs.PolynomialLevel(3.0)),
            peers.polynomial_decay(inner, 3.0),
            numbers=5,
            **read,
        ),
        exact(
            "adam, exponential average",
            "optax.ema of the weights, corrected for its bias",
            averaged(adam, beliefs.LocalLevel(0.99)),
            peers.exponential_average(inner, 0.99, debias=True),
            numbers=5,
            **read,
        ),
        exact(
            "adam, exponential average from the start",
            "optax.incremental_update of the weights",
            averaged(adam, beliefs.LocalLevel(0.99, prior_sample_size=100.0)),
            peers.exponential_average(inner, 0.99, debias=False),
            numbers=5,
            **read,
        ),
        exact(
            "adam, plain average of 1 in 10",
            "algorithm 1 of Izmailov et al. (2018), a cycle of 10",
            averaged(adam, beliefs.LocalLevel(1.0), every=10),
            peers.stochastic_weight_averaging(inner, 10),
            numbers=5,
            **read,
        ),
        exact(
            "adam, spread of 1 in 10 iterates",
            "variance of diagonal SWAG of Maddox et al. (2019), a cycle of 10",
            averaged(adam, beliefs.LocalLevel(1.0), every=10, variance=True),
            peers.diagonal_swag(inner, 10),
            numbers=5,
            read=spread,
            peer_read=peers.average,
        ),
        differs(
            "sgd, exponential average of 1 in 5",
            "optax.lookahead",
            APPROXIMATE,
            averaged(sgd, beliefs.LocalLevel(0.5**0.2, prior_sample_size=2.0), every=5),
            peers.lookahead(optax.sgd(0.05), 5, 0.5),
            "Its slow weights are such an average, of a path that starts anew from them each time: "
            "the average is followed at once.",
            **read,
        ),
        differs(
            "sgd, plain average",
            "optax.contrib.schedule_free",
            APPROXIMATE,
            averaged(sgd, beliefs.LocalLevel(1.0)),
            optax.contrib.schedule_free(optax.sgd(0.05), 0.05, b1=0.9),
            "Its x is the plain average of its z, whose gradients are taken nearer to the average "
            "than to z; the same as b1 goes to 0.",
            read=optimum,
            peer_read=optax.contrib.schedule_free_eval_params,
            written_by=SHIPPED,
        ),
    ]


def schedules() -> list[Row]:
    """Rates that follow from what is believed of an optimum."""
    curvature, noise, variance = 2.0, 0.5, 1.0
    belief = beliefs.Optimum(curvature, noise, variance)

    def robbins_monro(count: Any) -> Any:
        return 1 / (curvature * (count + 1.0) + noise / (curvature * variance))

    period = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 1, "decay_steps": 100}
    warm_restarts = optax.sgdr_schedule([period] * 5)
    return [
        exact(
            "a fixed optimum, followed at once",
            "optax.scale_by_schedule(1/(hn + R/(h v0))), the rates of Robbins and Monro (1951)",
            Assumptions(1.0, belief, control.to_optimum()),
            optax.scale_by_schedule(lambda count: -robbins_monro(count)),
            written_by=COMPOSED,
            numbers=3,
        ),
        differs(
            "a fixed optimum, followed at once",
            "optax.sgdr_schedule, warm restarts every 100 steps",
            APPROXIMATE,
            Assumptions(1.0, belief, control.to_optimum()),
            optax.scale_by_learning_rate(warm_restarts),
            "A restart is what the rates 1/(hn + R/(h v0)) do at a switch of the task, when n is 0 "
            "again; of switches at times set beforehand there is no belief. In between they fall "
            "as one over the step, and not as a cosine.",
            at_most=3.0,
            written_by=COMPOSED,
        ),
    ]


def limits() -> list[Row]:
    """Limits of a finite horizon and of a hold, on Adam's beliefs."""
    gradient, moment = beliefs.LocalLevel(0.9), beliefs.PrecisionWalk(0.999)
    belief = beliefs.independent(gradient=gradient, curvature=moment)
    average = optax.chain(optax.ema(0.9), optax.scale_by_learning_rate(0.05))

    def planned(objective: Objective, time_step: float, hold: bool) -> Assumptions:
        policy = control.horizon(objective, time_step, exact_hold=hold)
        return Assumptions(1.0, belief, policy._replace(clipped=None))

    def nearly_myopic(_: Problem, s: Any) -> Assumptions:
        return planned(Objective(rate=0.05 / s, discount=1 / s), 1.0, False)

    def nearly_ballistic(_: Problem, s: Any) -> Assumptions:
        return planned(Objective(discount=s), 0.01, False)

    def briefly_held(_: Problem, s: Any) -> Assumptions:
        held = planned(Objective(discount=0.0), s, True)
        return held._replace(learning_rate=0.01 / s)

    def weakly_decaying(_: Problem, s: Any) -> Assumptions:
        return rules.adam.assumptions(0.01)._replace(drift=Decay(s))

    ballistic = optax.adam(0.01, eps=0.0)
    return [
        Row(
            "horizon",
            "optax.ema (momentum)",
            LIMIT,
            nearly_myopic,
            lambda _: average,
            "of a short horizon s = 1/gamma.",
            order=1.0,
            written_by=COMPOSED,
        ),
        Row(
            "horizon",
            "optax.adam",
            LIMIT,
            nearly_ballistic,
            lambda _: ballistic,
            "of a long horizon, s = gamma.",
            order=1.0,
            written_by=SHIPPED,
        ),
        Row(
            "horizon, exact hold",
            "optax.adam",
            LIMIT,
            briefly_held,
            lambda _: ballistic,
            "of a short hold, s = dt: the saturation of the step.",
            order=1.0,
            written_by=SHIPPED,
        ),
        Row(
            "adamw",
            "optax.adam",
            LIMIT,
            weakly_decaying,
            lambda _: optax.adam(0.01),
            "of weak decay, s = weight_decay.",
            order=1.0,
            written_by=SHIPPED,
        ),
    ]


def rows() -> list[Row]:
    """All rows of the atlas. They are built in the float that is in force."""
    return [
        *recovered(),
        *anchors(),
        *geometries(),
        *variational(),
        *distances(),
        *averages(),
        *schedules(),
        *limits(),
    ]
