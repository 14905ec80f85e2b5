r"""Belief + policy = optimizer: an ordinary optax transformation with its posterior inside.

At every step the belief is predicted over the displacement that the parameters really took, updated
with the gradient, and read; the policy turns what it says into a direction.
"""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav import _probe
from beliefnav._checks import POSITIVE
from beliefnav._probe import Probe
from beliefnav._trees import (
    arrays,
    copied,
    fitted,
    is_observed,
    named_leaves,
    wide,
    wide_dtype,
)
from beliefnav.beliefs.contract import BeliefLike, Info, Posterior, as_belief
from beliefnav.control import Policy
from beliefnav.drift import Decay, check_drift

PyTree = Any

__all__ = [
    "NavigationState",
    "SENSED",
    "check_real",
    "check_spelling",
    "forwarding",
    "is_navigation",
    "navigator",
    "open_probes",
    "scale_by_navigation",
]


class NavigationState(NamedTuple):
    """State of `scale_by_navigation`.

    Attributes:
        belief: the filter's state.
        missing: number of entries of the last gradient that were not observed, int32; ``None`` if
            entries are not counted, so that ``optax.tree.get(state, "missing")`` is then ``None``
            too. They are counted where the state says so: on request, and in a recording.
        clipped: number of entries whose curvature the policy clipped at the last step, int32, 0 for
            a policy that never clips; ``None`` if entries are not counted.
        previous_params: the parameters at the last step; ``None`` if the belief does not ask how
            far they moved.
        start_params: the initial parameters; ``None`` if the policy does not ask for them.
        probe: ``None`` unless recorded.
    """

    belief: Any
    missing: Array | None
    clipped: Array | None
    previous_params: PyTree
    start_params: PyTree
    probe: Probe | None

    def believed_optimum(self, params: PyTree) -> tuple[PyTree, PyTree] | None:
        """Mean and variance of the optimum; ``None`` for a belief about gradients alone.

        Args:
            params: not used: the distance that is believed is that from the last parameters.
        """
        del params
        posterior = self.belief.posterior()
        if posterior.distance_mean is None:
            return None
        return posterior.optimum(self.previous_params)


def scale_by_navigation(
    belief: BeliefLike, policy: Policy, *, count_missing: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Replace a gradient by the direction that a policy takes on a belief about it.

    The direction has the sign of the gradient, as in optax's other ``scale_by_*``.

    ``update`` takes five optional extra arguments: ``curvature``, a tree of readings of a second
    sensor for beliefs that have one; instead of it ``per_example_grads``, gradients of some
    examples [example, ...], whose mean square (the empirical Fisher information) is then that
    reading; and ``displacement``, the step taken since the last update (default: measured, if the
    belief uses it, as ``params`` minus the parameters of the last update, which is right whatever
    stands before or after in a chain); and, for beliefs that know of tasks or of examples, as
    `beliefnav.beliefs.FisherOptimum` does, ``task_begins``, a boolean, whether a task begins with
    this batch, and ``examples``, how many examples it has. Other beliefs leave these two unread.

    An entry of the gradient that is NaN or infinite, or whose square is (in float32 an entry beyond
    1.8e19), is not observed: its belief stays as predicted and the rest goes on. With
    ``count_missing``, and in a `beliefnav.recording.record`, the state's ``missing`` counts it;
    otherwise that is ``None``. Put transformations that mix entries, such as clipping by global
    norm, behind this one if you rely on that.

    Beliefs are held in float32 or wider; updates have the dtype of the parameters, or of the
    gradient when ``update`` is called without parameters.

    What is believed of a parameter is sharded as the parameter is. ``init`` sees to that when it is
    called outside of ``jax.jit``, and inside of it on a mesh of explicit axes, under
    ``jax.set_mesh``. On a mesh of automatic axes ``jax.jit(init)`` makes arrays that do not depend
    on the parameters, and puts them whole on one device or on all: give it ``out_shardings``, as in
    the example. Inside ``jax.shard_map`` a belief or a policy that couples entries couples those of
    one shard; one that is elementwise is the same as outside.

    Args:
        belief: a model of `beliefnav.beliefs`, a filter of one, or anything with a ``filter()``.
        policy: one of `beliefnav.control`, or your own.
        count_missing: count the entries that were not observed, as the state's ``missing``, and
            those whose curvature the policy clipped, as ``clipped``. Each is a sum over all
            entries; where they are sharded, devices wait for each other in one all-reduce for each
            axis of the mesh, which a step of the rules that are elementwise otherwise does without.

    Returns:
        An optax transformation whose state is a `NavigationState`.

    Raises:
        ValueError: at ``init``, a parameter is not a real floating-point array; at ``update``, the
            belief needs ``params`` and they are missing, or ``per_example_grads`` are not like the
            gradient with one more axis in front, or stand beside a ``curvature``; or, on a mesh of
            explicit axes, the belief or the policy would have to choose a sharding.
        TypeError: ``belief`` has no ``filter()`` or ``policy`` is not a `Policy`; at ``update``, an
            extra argument is nearly the name of one of these, or nothing is said of a
            ``curvature`` that the belief needs.

    Example:
        A state that is made under ``jax.jit`` and sharded as the parameters are.

        >>> import jax, jax.numpy as jnp, optax
        >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec
        >>> from beliefnav import beliefs, control, navigator, posterior
        >>> mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(AxisType.Auto,))
        >>> whole, parts = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("d",)))
        >>> params = jax.device_put(jnp.ones(8), parts)
        >>> optimizer = navigator(0.1, beliefs.LocalLevel(0.9), control.myopic())
        >>> shardings = optax.tree.map_params(
        ...     optimizer,
        ...     lambda _, param: param.sharding,
        ...     jax.eval_shape(optimizer.init, params),
        ...     params,
        ...     transform_non_params=lambda _: whole,
        ... )
        >>> state = jax.jit(optimizer.init, out_shardings=shardings)(params)
        >>> posterior(state).gradient_mean.sharding == parts
        True
    """
    held = as_belief(belief)
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a beliefnav.control.Policy, got {policy!r}.")
    filter_ = held.filter()

    diagnose = filter_.diagnose or (lambda *_: Info())

    def init(params: PyTree) -> Any:
        check_real(params)
        params = arrays(params)
        return NavigationState(
            belief=filter_.init(params),
            missing=jnp.zeros((), jnp.int32) if count_missing else None,
            clipped=jnp.zeros((), jnp.int32) if count_missing else None,
            previous_params=copied(params) if filter_.uses_displacement else None,
            start_params=copied(params) if policy.uses_start else None,
            probe=None,
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        curvature: PyTree = UNSAID,
        per_example_grads: PyTree = None,
        displacement: PyTree = None,
        task_begins: ArrayLike | None = None,
        examples: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        check_spelling(extra_args)
        updates, params, curvature, per_example_grads, displacement = arrays(
            (updates, params, curvature, per_example_grads, displacement)
        )
        if curvature is UNSAID:
            if filter_.needs_curvature and per_example_grads is None:
                raise TypeError(
                    f"Cannot update {held.name} without curvature. This is because it learns of "
                    "the curvature from readings alone; give update(..., curvature=), or "
                    "curvature=None at a step without a reading. Where the host has no place for "
                    "it, as flax's TrainState.apply_gradients, call update yourself."
                )
            curvature = None
        if per_example_grads is not None:
            if curvature is not None:
                raise ValueError(
                    "Cannot read the curvature twice. This is because update was given both "
                    "curvature and per_example_grads; give one."
                )
            curvature = _mean_square(per_example_grads, updates)
        if examples is not None and filter_.examples is not None:
            share = examples / filter_.examples
            updates, curvature = _wide_scaled((updates, curvature), share)
        if filter_.uses_displacement:
            if params is None:
                raise ValueError(
                    f"Cannot update {held.name} without params. This is because it "
                    "measures how far they moved; call update(gradient, state, params)."
                )
            if displacement is None:
                displacement = jax.tree.map(jnp.subtract, params, state.previous_params)
        sensed = curvature if filter_.uses_curvature else None
        with _saying_what_to_do(held.name):
            seen = filter_.predict(state.belief, displacement), updates, sensed
            updated = filter_.update(*seen)
            if task_begins is not None and filter_.anew is not None:
                begun, told = filter_.anew(seen[0], updated), jnp.asarray(task_begins, bool)
                updated = jax.tree.map(partial(jnp.where, told), begun, updated)
            posterior = filter_.posterior(updated, policy.reads)
            seen_from = (posterior, params, state.start_params)[: 3 if policy.uses_start else 2]
            direction = policy.step(*seen_from)
        direction = jax.tree.map(
            lambda d, p: wide(d, jnp.result_type(p)),
            direction,
            updates if params is None else params,
        )
        # What nobody reads is not computed: XLA would leave it out, but tracing costs time too.
        missing, clipped, probe = state.missing, state.clipped, state.probe
        if missing is not None:
            missing = _count(jax.tree.map(lambda y: ~is_observed(y), updates))
        if clipped is not None:
            clipped = _count(policy.clipped and policy.clipped(posterior, params))
        if probe is not None:
            probe = _probe.read(probe, updates, updated.posterior(), diagnose(*seen))
        return direction, NavigationState(
            belief=updated,
            missing=missing,
            clipped=clipped,
            previous_params=params if filter_.uses_displacement else None,
            start_params=state.start_params,
            probe=probe,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def navigator(
    learning_rate: optax.ScalarOrSchedule,
    belief: BeliefLike,
    policy: Policy,
    drift: Decay | None = None,
    *,
    count_missing: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer from a belief and a policy: `scale_by_navigation`, times minus a learning rate.

    Args:
        learning_rate: a positive number or a schedule. For `beliefnav.control.horizon`, whose
            direction is the whole step, 1.
        belief: a model of `beliefnav.beliefs`, a filter of one, or anything with a ``filter()``.
        policy: one of `beliefnav.control`, or your own.
        drift: movement that the policy does not know of, added to its direction.
        count_missing: see `scale_by_navigation`.

    Returns:
        An optax optimizer; read its belief with `beliefnav.posterior`.

    Raises:
        ValueError: ``learning_rate`` is known and not positive.
        TypeError: ``drift`` is no `Decay`; see `scale_by_navigation`.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import beliefs, control, navigator, posterior
        >>> belief = beliefs.LocalLevel(0.9, noise_variance=4.0)
        >>> optimizer = navigator(0.1, belief, control.myopic())
        >>> params = jnp.zeros(3)
        >>> state = optimizer.init(params)
        >>> _, state = optimizer.update(jnp.array([1.0, 2.0, jnp.nan]), state, params)
        >>> posterior(state).gradient_mean.tolist(), posterior(state).gradient_variance.tolist()
        ([1.0, 2.0, 0.0], [4.0, 4.0, inf])
    """
    kind = optax.ScalarOrSchedule
    POSITIVE.check_annotated("navigator", "learning_rate", learning_rate, kind)
    check_drift(drift)
    return optax.chain(
        scale_by_navigation(belief, policy, count_missing=count_missing),
        *(() if drift is None else (drift.transformation(),)),
        optax.scale_by_learning_rate(learning_rate),
    )


def forwarding(inner: Any) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose ``update`` may be called with more than it takes, and gets what it takes.

    ``optax.with_extra_args_support`` drops all more from what is not declared to take any, such as
    ``optax.MultiSteps``, whose ``update`` passes it on.
    """
    kinds = {p.kind for p in inspect.signature(inner.update).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return optax.GradientTransformationExtraArgs(inner.init, inner.update)
    return optax.with_extra_args_support(inner)


def open_probes(opt_state: PyTree, coordinates: Mapping[str, Array]) -> PyTree:
    """Open a `Probe` at ``coordinates`` in every belief of an optimizer state, and count there.

    Args:
        opt_state: state of an optimizer.
        coordinates: parameter path -> flat indices [k].

    Returns:
        The state, whose beliefs report on those entries from the next update on, and count the
        entries that are missing or clipped.
    """

    def open_probe(leaf: Any) -> Any:
        if not is_navigation(leaf):
            return leaf
        own = copied(coordinates)
        return leaf._replace(
            missing=jnp.zeros((), jnp.int32),
            clipped=jnp.zeros((), jnp.int32),
            probe=_probe.read(Probe(own, {}), None, Posterior(), Info()),
        )

    return jax.tree.map(open_probe, opt_state, is_leaf=is_navigation)


def is_navigation(leaf: Any) -> bool:
    """Whether a node of an optimizer state is a `NavigationState`."""
    return isinstance(leaf, NavigationState)


def _mean_square(per_example_grads: PyTree, gradient: PyTree) -> PyTree:
    """The mean over examples of squared gradients, where there is a gradient: a mask leaves out.

    Raises:
        ValueError: the shapes do not fit; it names the leaf.
    """
    examples = fitted("update", "per_example_grads", per_example_grads, gradient)
    lengths = {jnp.shape(g)[:1] for g in jax.tree.leaves(examples)}
    for (path, y), g in zip(named_leaves(gradient), jax.tree.leaves(examples), strict=True):
        want, got = jnp.shape(y), jnp.shape(g)
        if got[1:] != want or len(lengths) > 1 or got[:1] in ((), (0,)):
            raise ValueError(
                f"per_example_grads of parameter {path!r} must have the shape "
                f"[example, *{want}], with the same number of examples for all; got {got}."
            )
    return jax.tree.map(_square_mean, examples)


def _square_mean(g: Array) -> Array:
    """In float32 or wider: a sum of squares in half precision loses the smaller ones."""
    return jnp.mean(jnp.square(g.astype(wide_dtype(g.dtype))), 0)


@contextmanager
def _saying_what_to_do(name: str) -> Iterator[None]:
    """Name the remedy where an operation needs to be told how to shard its result."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "ShardingTypeError":  # which jax does not export
            raise
        raise ValueError(
            f"Cannot step with {name} on a mesh of explicit axes. This is because "
            "its belief or its policy mixes entries of an array that is sharded, and does not say "
            "how the result is. Do the update as jax.sharding.auto_axes(optimizer.update, "
            "out_sharding=jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (params, state))), "
            "make the mesh with axis_types=AxisType.Auto, or replicate the parameters. jax says: "
            f"{error}"
        ) from error


def _wide_scaled(tree: PyTree, factor: ArrayLike) -> PyTree:
    """``factor * tree`` in at least float32: the sum over examples of a batch of another size."""
    return jax.tree.map(lambda x: factor * x.astype(wide_dtype(x.dtype)), tree)


UNSAID: Any = object()
"""An argument of which nothing was said, not even that it is ``None``."""

SENSED = ("curvature", "per_example_grads", "displacement")
"""Readings beside the gradient, of the parameters that it is taken at."""


def check_spelling(extra_args: Mapping[str, Any]) -> None:
    """Refuse an argument that is nearly one of ours; others are for others in a chain."""
    ours = (*SENSED, "task_begins", "examples")
    for name in extra_args.keys() - ours:
        if meant := difflib.get_close_matches(name, ours, 1, cutoff=0.88):
            raise TypeError(
                f"update got an unexpected argument {name!r}; did you mean {meant[0]!r}?"
            )


def check_real(params: PyTree) -> None:
    """Raise unless every parameter is a real floating-point array."""
    for path, leaf in named_leaves(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            remedy = (
                "wrap the optimizer in optax.contrib.split_real_and_imaginary."
                if jnp.issubdtype(dtype, jnp.complexfloating)
                else "train only the floating-point leaves, for instance with optax.masked."
            )
            raise ValueError(
                f"Cannot hold a belief about parameter {path!r} of dtype {dtype}. "
                f"This is because beliefs are about real numbers; {remedy}"
            )


def _count(masks: PyTree) -> Array:
    """Number of entries that are True, int32, over all arrays and all devices.

    A plain sum, which the compiler of a sharded program ends with one reduction over the devices
    for all arrays together. Inside ``jax.shard_map`` nothing is done behind one's back, so that the
    reduction is asked for.
    """
    count = sum((jnp.sum(m, dtype=jnp.int32) for m in jax.tree.leaves(masks)), jnp.int32(0))
    axes = tuple(jax.typeof(count).manual_axis_type.varying)
    return lax.psum(count, axes) if axes else count
