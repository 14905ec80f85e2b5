r"""Rules that expect tasks to switch, and reset weights without being told when.

| rule | keeps | resets |
|---|---|---|
| `hazard_filter` | a Gaussian for every parameter | all of them, a little at every step |
| `two_hypothesis` | any optax optimizer | when a batch is likelier under the prior mean |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import control, ssm
from beliefnav._checks import POSITIVE, UNIT_INTERVAL
from beliefnav.assumptions import Assumptions, rule
from beliefnav.ssm._trees import restricted
from beliefnav.transform import NavigationState, copied, path_name

PyTree = Any


@rule
def hazard_filter(
    hazard: ArrayLike,
    prior_variance: PyTree = None,
    *,
    examples: ArrayLike,
    count_missing: bool = True,
) -> Assumptions:
    r"""Go to where the optimum is believed to be, if it is drawn anew now and then.

    $$ m \leftarrow \theta_0 + (1-p)(m - \theta_0), \quad
       v \leftarrow (1-p)^2 v + (1 - (1-p)^2) v_0, \qquad
       \tfrac1v \leftarrow \tfrac1v + \sum_i g_i^2, \quad m \leftarrow m - v \sum_i g_i,
       \quad \theta = m $$

    Assumes optima that are drawn anew around the initial parameters with the hazard $p$ a step, and
    gradients $g_i$ of the negative log-likelihood of examples (`ssm.FisherOptimum`), and takes
    Newton's plan. There is no learning rate: a parameter of which little was seen, or long ago,
    takes long steps. Without a hazard they shrink as $1/t$; a learner of a stream of tasks then
    learns less and less.

    ``update`` takes the mean gradient of the batch, and ``per_example_grads`` of all or some of its
    examples [example, ...]. Without these $\sum_i g_i^2$ is taken to be $(\sum_i g_i)^2$, whose
    expectation is too large by $B(B-1)$ times the squared mean of a gradient: not at an optimum,
    but far from it, where steps are then too short. So it is for an entry of which the given
    examples say nothing. A reading of the mean square by other means goes into ``curvature``; where
    that is negative or not finite nothing is learned. Under ``optax.MultiSteps`` ``examples``
    counts those of all parts of a batch, and the gradients of examples are those of the last part.

    `beliefnav.sample_params` draws parameters from the belief. ``optax.tree.get(state, name)``
    reads the scalars of `ssm.FisherOptimumState`: ``switch_probability`` and ``reset_fraction``
    (both $p$) and ``surprise``.

    Args:
        hazard: $p$ in [0, 1], per step.
        prior_variance: $v_0 > 0$, a number, an array or a tree like the parameters. Default: the
            variance of the entries of each initial array (`ssm.initial_variance`, which says what
            of arrays whose entries are all the same).
        examples: $B > 0$, the number of examples that a gradient is the mean of.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; at ``init``, the prior variance does not
            fit the parameters or is not positive; at ``update``, ``params`` is missing or
            ``per_example_grads`` do not fit the gradient. The error names it.
        TypeError: ``hazard`` is a schedule; ``optax.inject_hyperparams`` takes those.

    Reference:
        The diagonal extended Kalman filter with the empirical Fisher information as curvature;
        Ollivier (2018), "Online natural gradient as a Kalman filter", theorem 2, for a hazard of 0.

    Example:
        Two tasks, one after the other, and nobody says when:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import rules, sample_params
        >>> loss = lambda weights, x, y: (x @ weights - y) ** 2 / 2  # of one example, in nats
        >>> optimizer = rules.hazard_filter(0.001, prior_variance=1.0, examples=8)
        >>> @jax.jit
        ... def step(weights, state, x, y):
        ...     grads = jax.vmap(jax.grad(loss), (None, 0, 0))(weights, x, y)
        ...     updates, state = optimizer.update(
        ...         grads.mean(0), state, weights, per_example_grads=grads
        ...     )
        ...     return optax.apply_updates(weights, updates), state
        >>> weights = jnp.zeros(2)
        >>> state = optimizer.init(weights)
        >>> for truth in (jnp.array([1.0, -1.0]), jnp.array([-1.0, 1.0])):
        ...     for key in jax.random.split(jax.random.key(0), 1000):
        ...         x, noise = jnp.split(jax.random.normal(key, (8, 3)), [2], axis=1)
        ...         weights, state = step(weights, state, x, x @ truth + noise[:, 0])
        ...     print(bool(jnp.all(jnp.abs(weights - truth) < 0.2)))
        True
        True
        >>> sample_params(state, jax.random.key(1)).shape
        (2,)
    """
    _check("hazard_filter", hazard, examples)
    POSITIVE.check_leaves("hazard_filter", "prior_variance", prior_variance)
    return Assumptions(
        1.0,
        ssm.FisherOptimum(hazard, examples, prior_variance),
        control.newton()._replace(clipped=None),
        approximations=(
            "The loss is a negative log-likelihood, and its curvature is taken for the variance of "
            "the gradient of one example, as it is on average where the model is right.",
            "Parameters are believed to be independent of each other.",
            "Optima that are drawn anew are followed by the best linear filter of them.",
        ),
        count_missing=count_missing,
    )


class TwoHypothesisState(NamedTuple):
    r"""State of `two_hypothesis`.

    Attributes:
        inner_state: of the optimizer.
        prior_mean: $\theta_0$, a tree like the parameters.
        switch_probability: $\pi$, that the task switched just before the last batch, a scalar.
        reset_fraction: the share of its way to $\theta_0$ that every parameter went at the last
            step, a scalar.
        surprise: the log of the ratio of the likelihoods of the last batch at $\theta_0$ and at
            $\theta$, in nats, a scalar; 0 where there is no evidence.
        without_evidence: number of steps at which a loss was not finite, int32.
    """

    inner_state: Any
    prior_mean: PyTree
    switch_probability: Array
    reset_fraction: Array
    surprise: Array
    without_evidence: Array


def two_hypothesis(
    inner: optax.GradientTransformation,
    hazard: ArrayLike,
    examples: ArrayLike,
    prior_mean: PyTree = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Reset an optimizer and its parameters as far as a batch says that the task has switched.

    Under the hypothesis that the task goes on, the batch is seen from the parameters $\theta$; if
    it has just switched, from the prior mean $\theta_0$. With the hazard $p$ and the mean loss $L$
    of $B$ examples, a negative log-likelihood in nats,

    $$ \mathrm{logit}\, \pi = \mathrm{logit}\, p + B [L(\theta) - L(\theta_0)] , \qquad
       \theta \leftarrow (1 - \pi)(\theta + u) + \pi \theta_0 , $$

    $u$ the update of ``inner``: the mean of the two hypotheses, of which the new one has not
    learned from its first batch. The state of ``inner`` becomes that mean too, $(1-\pi)$ of itself
    and $\pi$ of a fresh one. What cannot be averaged is that of the likelier hypothesis: counters
    of steps start anew where $\pi > 1/2$, and are what they were otherwise. A schedule inside
    ``inner`` so begins again with every task. Random keys and injected hyper-parameters stay.

    ``update`` needs two more arguments by name, ``value``, the mean loss $L(\theta)$ of the batch,
    and ``value_fn``, the same as a function of parameters, which is evaluated at $\theta_0$: one
    forward pass. Where one of them is not finite there is no evidence ($\pi = p$), and
    ``without_evidence`` counts it. ``optax.tree.get(state, name)`` reads the scalars of
    `TwoHypothesisState`; where ``inner`` has some of the same names, read them off the state.

    A gradient that is not finite goes to ``inner`` as it is: wrap one that counts it as missing,
    such as `beliefnav.rules.adam`, or ``optax.apply_if_finite``.

    Wrap the whole optimizer, learning rate included: what scales the updates afterwards also scales
    the resets. Under ``optax.MultiSteps``, ``value`` and ``value_fn`` are those of the last part of
    a batch, and ``examples`` counts these.

    Args:
        inner: any optax optimizer whose state is made of floats, scalar counters and random keys.
        hazard: $p$ in [0, 1], per step.
        examples: $B > 0$, the number of examples that the loss is the mean of.
        prior_mean: $\theta_0$, a tree like the parameters. Default: the parameters at ``init``.
        mask: tree of booleans, or a callable from parameters to one: which arrays a switch resets.
            The others stay where they are under both hypotheses, and the fresh state of ``inner``
            starts from there. (Inside of ``optax.masked`` or ``optax.partition`` instead,
            ``value_fn`` gets a tree with ``optax.MaskedNode`` in the places of other arrays, and
            has to fill them in.)

    Returns:
        The optimizer; its state is a `TwoHypothesisState`.

    Raises:
        ValueError: a Python number is out of its range; at ``init``, the prior mean or the mask is
            not like the parameters, or ``inner`` has state that can neither be averaged nor
            counted, such as an array of integers; at ``update``, ``params`` is missing, or
            ``value`` is not a scalar. The error names it.
        TypeError: ``hazard`` is a schedule or ``inner`` no optimizer; at ``update``, ``value`` or
            ``value_fn`` is missing, or ``value_fn`` is no function.

    Example:
        What a continual learner writes:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import rules
        >>> loss = lambda weights, x, y: jnp.mean((x @ weights - y) ** 2) / 2
        >>> optimizer = rules.two_hypothesis(optax.adam(0.1), hazard=0.01, examples=32)
        >>> @jax.jit
        ... def step(weights, state, x, y):
        ...     value_fn = lambda weights: loss(weights, x, y)
        ...     value, grads = jax.value_and_grad(value_fn)(weights)
        ...     updates, state = optimizer.update(
        ...         grads, state, weights, value=value, value_fn=value_fn
        ...     )
        ...     return optax.apply_updates(weights, updates), state
        >>> weights = jnp.zeros(2)
        >>> state = optimizer.init(weights)
        >>> for truth in (jnp.array([1.0, -1.0]), jnp.array([-2.0, 2.0])):
        ...     for t, key in enumerate(jax.random.split(jax.random.key(0), 200)):
        ...         x = jax.random.normal(key, (32, 2))
        ...         weights, state = step(weights, state, x, x @ truth)
        ...         if t == 0:
        ...             print(optax.tree.get(state, "switch_probability").round(2))
        0.01
        1.0
    """
    _check("two_hypothesis", hazard, examples)
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise TypeError(f"two_hypothesis: inner must be an optax optimizer, got {inner!r}.")
    wrapped = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> Any:
        chosen(params)
        target = copied(params)
        if prior_mean is not None:
            given = _fitted("prior_mean", prior_mean, params)
            target = jax.tree.map(lambda p, m: jnp.array(m, p.dtype), params, given)
        inner_state = wrapped.init(params)
        _check_mixable(inner_state)
        nothing = [jnp.zeros((), jnp.float32) for _ in range(3)]
        return TwoHypothesisState(
            inner_state, target, *nothing, without_evidence=jnp.zeros((), jnp.int32)
        )

    def chosen(params: PyTree) -> PyTree:
        """Which arrays are reset, as a tree of booleans."""
        chosen = mask(params) if callable(mask) else mask
        if chosen is None:
            return jax.tree.map(lambda _: True, params)
        return _fitted("mask", chosen, params, shapes=False)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update two_hypothesis without params. This is because it resets them; call "
                "update(gradient, state, params, value=..., value_fn=...)."
            )
        if value is None or value_fn is None:
            missing = " and ".join(
                name for name, x in (("value", value), ("value_fn", value_fn)) if x is None
            )
            raise TypeError(
                f"two_hypothesis: update needs {missing}. Give value=, the mean loss of the batch "
                "in nats, and value_fn=, the same as a function of parameters: whether the task "
                "has switched is seen from the loss at the prior mean."
            )
        if not callable(value_fn):
            raise TypeError(
                "two_hypothesis: value_fn must be a function from parameters to the mean loss of "
                f"the batch, got {value_fn!r}."
            )
        where = chosen(params)
        fresh_params = jax.tree.map(
            lambda m, new, p: new if m else p, where, state.prior_mean, params
        )
        surprise, seen = _evidence(value, value_fn(fresh_params), examples)
        switched = jax.nn.sigmoid(jax.scipy.special.logit(jnp.float32(hazard)) + surprise)
        updates, inner_state = wrapped.update(
            updates, state.inner_state, params, value=value, value_fn=value_fn, **extra_args
        )

        def mean(u: Array, new: Array, p: Array) -> Array:
            moved = new.astype(jnp.float32) - p.astype(jnp.float32)
            mixed = (1 - switched) * u + switched * moved
            likelier = jnp.where(switched > 0.5, moved, u)
            return jnp.where(jnp.isfinite(mixed), mixed, likelier).astype(p.dtype)

        updates = jax.tree.map(
            lambda m, u, new, p: mean(u, new, p) if m else u,
            where,
            updates,
            state.prior_mean,
            params,
        )
        return updates, TwoHypothesisState(
            _mixed(switched, inner_state, wrapped.init(fresh_params)),
            state.prior_mean,
            switch_probability=switched,
            reset_fraction=switched,
            surprise=surprise,
            without_evidence=jnp.where(
                seen, state.without_evidence, optax.safe_increment(state.without_evidence)
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _check(rule: str, hazard: Any, examples: Any) -> None:
    if callable(hazard):
        raise TypeError(
            f"{rule}: hazard must be a number in [0, 1], got a callable. For a schedule use "
            f"optax.inject_hyperparams(rules.{rule})."
        )
    UNIT_INTERVAL.check(rule, "hazard", hazard)
    POSITIVE.check(rule, "examples", examples)


def _evidence(value: Any, prior_value: Any, examples: ArrayLike) -> tuple[Array, Array]:
    """The log of the ratio of likelihoods, 0 where it is not known, and whether it is."""
    for name, x in (("value", value), ("the result of value_fn", prior_value)):
        got = "a " + type(x).__name__ if isinstance(x, tuple) else f"the shape {jnp.shape(x)}"
        if got != "the shape ()":
            raise ValueError(
                f"two_hypothesis: {name} must be a scalar, the mean loss of the batch, got {got}."
            )
    difference = jnp.asarray(value, jnp.float32) - jnp.asarray(prior_value, jnp.float32)
    evidence = (examples * difference).astype(jnp.float32)
    seen = jnp.isfinite(evidence)
    return jnp.where(seen, evidence, 0), seen


def _fitted(name: str, tree: PyTree, params: PyTree, *, shapes: bool = True) -> PyTree:
    """A tree like the parameters, without what a mask leaves out.

    Raises:
        ValueError: it has another structure or, if these matter, other shapes.
    """
    if not jax.tree.leaves(params):  # optax looks at states of no parameters
        return params
    fitted = restricted(tree, params)
    want = jax.tree.map(jnp.shape, params)
    if fitted is None or (shapes and jax.tree.map(jnp.shape, fitted) != want):
        raise ValueError(
            f"two_hypothesis: {name} must be like the parameters, of the shapes {want}; got "
            f"{jax.tree.map(jnp.shape, tree)}."
        )
    return fitted


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _stays(path: tuple[Any, ...], x: Any) -> bool:
    """Random keys, and hyper-parameters that were injected: they belong to no task."""
    return _is_key(x) or any(getattr(part, "name", None) == "hyperparams" for part in path)


def _check_mixable(inner_state: PyTree) -> None:
    """Raise unless every leaf is averaged, counts, or stays."""
    for path, x in jax.tree.leaves_with_path(inner_state):
        x = jnp.asarray(x) if not hasattr(x, "dtype") else x
        if not (_stays(path, x) or jnp.issubdtype(x.dtype, jnp.inexact) or x.ndim == 0):
            raise ValueError(
                f"Cannot use two_hypothesis with an optimizer that has {path_name(path)!r}, of "
                f"dtype {x.dtype} and shape {x.shape}, in its state. This is because "
                "integers can be counters, which start anew, but not averaged with those of a "
                "fresh state; keep it in floating point, or wrap two_hypothesis in what needs it."
            )


def _mixed(switched: Array, state: PyTree, fresh: PyTree) -> PyTree:
    """The mean of two states of an optimizer, or that of the likelier where there is none."""

    def leaf(path: tuple[Any, ...], x: Array, new: Array) -> Array:
        if _stays(path, x):
            return x
        likelier = jnp.where(switched > 0.5, new, x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return likelier
        # In this form what does not change stays, to the last digit.
        mean = x + switched.astype(x.dtype) * (new - x)
        return jnp.where(jnp.isfinite(mean), mean, likelier)

    def node(path: tuple[Any, ...], x: Any, new: Any) -> Any:
        if not isinstance(x, NavigationState):
            return leaf(path, x, new)
        # A window on the belief was opened after it was made, and is no part of it.
        mean = jax.tree.map_with_path(leaf, x._replace(probe=None), new._replace(probe=None))
        return mean._replace(probe=x.probe)

    return jax.tree.map_with_path(
        node, state, fresh, is_leaf=lambda x: isinstance(x, NavigationState)
    )
