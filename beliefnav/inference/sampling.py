"""The no-U-turn sampler of numpyro and of blackjax on one target, in the same words.

All chains of all units run side by side, vmapped, in compiled parts between which a progress bar
moves. Each chain adapts its step size and mass matrix by itself, in Stan's windows.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from beliefnav.inference.fits import Fit, State, diagnose, labelled, with_verdict
from beliefnav.inference.targets import Density, Target, density
from beliefnav.recording import Recording

__all__ = ["NUM_PARTS", "blackjax_nuts", "numpyro_nuts"]

NUM_PARTS = 20
"""How often the progress bar moves."""

NUM_STARTS = 20
"""How often a start is drawn where the density or its slope is not finite."""


class _Chain(NamedTuple):
    """A chain of blackjax between two steps."""

    state: Any
    step_size: Array
    inverse_mass_matrix: Array
    key: Array


class _Draw(NamedTuple):
    position: Array
    statistics: dict[str, Array]


class _Kernel(NamedTuple):
    """A sampler for one chain of one unit.

    The position of its states is that of a `Density`, in one array.

    Attributes:
        name: whose it is.
        begin: ``(key, position, step_size, inverse_mass_matrix, recording) -> chain``.
        step: ``(chain, recording) -> (chain, _Draw)``.
        end: ``chain -> (position, step_size, inverse_mass_matrix)``.
        stands: ``chain -> whether`` its log density and the slope of that are finite: a chain that
            starts where they are not stays there.
        num_discarded: number of first steps that are warm-up.
        axes: of the chains in the arrays of ``chain``, ``None`` in what all chains share.
    """

    name: str
    begin: Callable[[Array, Array, Array, Array, Recording], Any]
    step: Callable[[Any, Recording], tuple[Any, _Draw]]
    end: Callable[[Any], tuple[Array, Array, Array]]
    stands: Callable[[Any], Array]
    num_discarded: int
    axes: Any = 0


def numpyro_nuts(
    target: Target,
    *,
    key: Array,
    num_warmup: int = 500,
    num_samples: int = 500,
    num_chains: int = 4,
    start: State | None = None,
    target_acceptance: float = 0.8,
    dense_mass: bool = False,
    max_tree_depth: int = 10,
    progress_bar: bool = True,
) -> Fit:
    """Draw from a posterior by numpyro's no-U-turn sampler.

    Args:
        target: the posterior, made by `beliefnav.inference.target`.
        key: random key.
        num_warmup: adaptation steps of a chain; 0 to go on from ``start`` as it is.
        num_samples: draws of a chain.
        num_chains: number of chains.
        start: where to start and with which step size and mass matrix, from ``Fit.state``: of an
            earlier run, of the same beliefs on another stream, or of `beliefnav.inference.laplace`.
            By default uniform in [-2, 2] in every unconstrained direction, drawn again where the
            density is not finite.
        target_acceptance: the acceptance probability that the step size is adapted to.
        dense_mass: adapt a dense mass matrix instead of a diagonal one: for a few hyper-parameters,
            which are correlated (1.5 times the effective samples of three).
        max_tree_depth: at most 2 to this power leapfrog steps a draw.
        progress_bar: show progress.

    Returns:
        The draws, their statistics and whether the chains agree.

    Raises:
        ValueError: a number is out of its range, ``start`` does not fit the target, or the density
            is not finite at a start; the error names where.
    """
    from numpyro.infer.hmc import HMCState, hmc
    from numpyro.infer.hmc_util import HMCAdaptState

    sampled = density(target)
    start_hmc: Any
    start_hmc, sample = hmc(
        potential_fn_gen=lambda recording: lambda z: sampled.potential(z, recording), algo="NUTS"
    )

    def begin(
        key: Array, position: Array, step_size: Array, matrix: Array, recording: Recording
    ) -> Any:
        return start_hmc(
            position,
            num_warmup,
            step_size=step_size,
            inverse_mass_matrix=matrix,
            dense_mass=dense_mass,
            target_accept_prob=target_acceptance,
            max_tree_depth=max_tree_depth,
            model_args=(recording,),
            rng_key=key,
        )

    def step(chain: Any, recording: Recording) -> tuple[Any, _Draw]:
        chain = sample(chain, (recording,))
        statistics = _statistics(
            chain.diverging,
            chain.accept_prob,
            chain.num_steps,
            -chain.potential_energy,
            chain.energy,
            chain.adapt_state.step_size,
        )
        return chain, _Draw(chain.z, statistics)

    def end(chain: Any) -> tuple[Array, Array, Array]:
        adapted = chain.adapt_state
        return chain.z, adapted.step_size, adapted.inverse_mass_matrix

    def stands(chain: Any) -> Array:
        return jnp.isfinite(chain.potential_energy) & jnp.isfinite(chain.z_grad).all()

    options = num_warmup, num_samples, num_chains, dense_mass
    # All chains count the same steps: with a counter each, all would look for a new step size
    # after every step, and mostly throw it away.
    adaptation = HMCAdaptState(*(0,) * len(HMCAdaptState._fields))._replace(window_idx=None)
    axes = HMCState(*(0,) * len(HMCState._fields))._replace(i=None, adapt_state=adaptation)
    kernel = _Kernel("numpyro", begin, step, end, stands, num_warmup, axes)
    return _run(target, sampled, kernel, key, start, options, progress_bar)


def blackjax_nuts(
    target: Target,
    *,
    key: Array,
    num_warmup: int = 500,
    num_samples: int = 500,
    num_chains: int = 4,
    start: State | None = None,
    target_acceptance: float = 0.8,
    dense_mass: bool = False,
    max_tree_depth: int = 10,
    progress_bar: bool = True,
) -> Fit:
    """Draw from a posterior by blackjax's no-U-turn sampler, after its window adaptation.

    The window adaptation is one compiled loop: the progress bar starts to move after it.

    Args:
        target: as in `numpyro_nuts`.
        key: as in `numpyro_nuts`.
        num_warmup: as in `numpyro_nuts`.
        num_samples: as in `numpyro_nuts`.
        num_chains: as in `numpyro_nuts`.
        start: as in `numpyro_nuts`.
        target_acceptance: as in `numpyro_nuts`.
        dense_mass: as in `numpyro_nuts`.
        max_tree_depth: as in `numpyro_nuts`.
        progress_bar: as in `numpyro_nuts`.

    Returns:
        The draws, their statistics and whether the chains agree.

    Raises:
        ValueError: see `numpyro_nuts`.
    """
    import blackjax

    sampled = density(target)
    kernel_step: Any = blackjax.nuts.build_kernel()
    window_adaptation: Any = blackjax.window_adaptation

    def log_density(recording: Recording) -> Callable[[Array], Array]:
        return lambda z: -sampled.potential(z, recording)

    def begin(
        key: Array, position: Array, step_size: Array, matrix: Array, recording: Recording
    ) -> _Chain:
        key_warmup, key = jax.random.split(key)
        if num_warmup:
            adaptation = window_adaptation(
                blackjax.nuts,
                log_density(recording),
                is_mass_matrix_diagonal=not dense_mass,
                initial_inverse_mass_matrix=matrix,
                initial_step_size=step_size,
                target_acceptance_rate=target_acceptance,
                adaptation_info_fn=lambda *_: None,
                max_num_doublings=max_tree_depth,
            )
            (warm, adapted), _ = adaptation.run(key_warmup, position, num_warmup)
            position = warm.position
            step_size = adapted["step_size"]
            matrix = adapted["inverse_mass_matrix"]
        state = blackjax.nuts.init(position, log_density(recording))
        return _Chain(state, step_size, matrix, key)

    def step(chain: _Chain, recording: Recording) -> tuple[_Chain, _Draw]:
        key, now = jax.random.split(chain.key)
        state, info = kernel_step(
            now,
            chain.state,
            log_density(recording),
            chain.step_size,
            chain.inverse_mass_matrix,
            max_num_doublings=max_tree_depth,
        )
        statistics = _statistics(
            info.is_divergent,
            info.acceptance_rate,
            info.num_integration_steps,
            state.logdensity,
            info.energy,
            chain.step_size,
        )
        return chain._replace(state=state, key=key), _Draw(state.position, statistics)

    def end(chain: _Chain) -> tuple[Array, Array, Array]:
        return chain.state.position, chain.step_size, chain.inverse_mass_matrix

    def stands(chain: _Chain) -> Array:
        slope = chain.state.logdensity_grad
        return jnp.isfinite(chain.state.logdensity) & jnp.isfinite(slope).all()

    options = num_warmup, num_samples, num_chains, dense_mass
    kernel = _Kernel("blackjax", begin, step, end, stands, 0)
    return _run(target, sampled, kernel, key, start, options, progress_bar)


def _statistics(
    diverging: Array,
    acceptance_rate: Array,
    num_steps: Array,
    log_density: Array,
    energy: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Statistics of a draw under the names of arviz's schema."""
    return {
        "diverging": diverging,
        "acceptance_rate": acceptance_rate,
        "n_steps": num_steps,
        "tree_depth": jnp.ceil(jnp.log2(num_steps + 1.0)).astype(int),
        "lp": log_density,
        "energy": energy,
        "step_size": step_size,
    }


def _start(
    sampled: Density,
    target: Target,
    key: Array,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    start: State | None,
    dense_mass: bool,
) -> State:
    """The given start, checked, or a random one."""
    if num_warmup < 0 or num_samples < 1 or num_chains < 1:
        raise ValueError(
            "NUTS needs num_warmup >= 0, num_samples >= 1 and num_chains >= 1, got "
            f"{num_warmup}, {num_samples} and {num_chains}."
        )
    batch = (*target.unit_shape, num_chains)
    shapes = {name: (*batch, *like.shape) for name, like in sampled.like.items()}
    dim = sampled.size
    if start is None:
        one = jnp.ones((*batch, dim), jnp.result_type(float))
        inside = _inside(jax.random.fold_in(key, 1), one)
        start = State(sampled.split(inside), one[..., 0], one)
    given = {name: jnp.shape(value) for name, value in start.position.items()}
    if given != shapes:
        raise ValueError(
            f"start does not fit the target: its positions have shapes {given}, the target needs "
            f"{shapes}: separate units, chains, and the site itself."
        )
    matrix = start.inverse_mass_matrix
    if dense_mass and matrix.ndim == len(batch) + 1:
        matrix = matrix[..., None] * jnp.eye(dim, dtype=matrix.dtype)
    elif not dense_mass and matrix.ndim == len(batch) + 2:
        matrix = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    return start._replace(inverse_mass_matrix=matrix)


def _inside(key: Array, like: Array) -> Array:
    """Unconstrained positions of the shape of ``like``."""
    return jax.random.uniform(key, like.shape, like.dtype, -2, 2)


def _at_starts(
    begin: Callable[..., Any],
    stands: Callable[[Any], Array],
    refuse: Callable[[np.ndarray, Array], Exception],
    key: Array,
    position: Array,
    given: bool,
) -> Any:
    """Chains that begin where the density is finite, or an error that says where it is not."""
    for attempt in range(NUM_STARTS):
        chain = begin(position)
        bad = ~np.asarray(stands(chain))
        if not bad.any():
            return chain
        if given or attempt + 1 == NUM_STARTS:
            raise refuse(bad, position)
        another = _inside(jax.random.fold_in(key, attempt), position)
        position = jnp.where(bad[..., None], another, position)


def _no_start(target: Target, sampled: Density, bad: np.ndarray, position: Array) -> ValueError:
    """What to say of the first chain that cannot start."""
    first = tuple(np.argwhere(bad)[0])
    where = f"chain {first[-1]}"
    unit = sampled.data
    if target.separate is not None:
        unit = jax.tree.map(lambda x: x[first[0]], unit)
        labels = target.stream.coords.get(target.separate)
        name = first[0] if labels is None else labels.values[first[0]]
        where = f"{target.separate} {str(name)!r}, {where}"
    values = jax.jit(sampled.constrain)(position[first], unit)
    shown = ", ".join(f"{name} = {np.asarray(x).tolist()}" for name, x in values.items())
    return ValueError(
        f"Cannot start NUTS at {where} ({int(bad.sum())} of {bad.size} chains). This is because "
        f"the log density or its slope is not finite at {shown}; use a prior that allows only what "
        "the belief does, or start from inference.laplace(target, key=...).state."
    )


def _run(
    target: Target,
    sampled: Density,
    kernel: _Kernel,
    key: Array,
    given: State | None,
    options: tuple[int, int, int, bool],
    progress_bar: bool,
) -> Fit:
    """Run all chains of all units, and label what comes out."""
    from tqdm import tqdm

    num_warmup, num_samples, num_chains, dense_mass = options
    start = _start(sampled, target, key, num_warmup, num_samples, num_chains, given, dense_mass)
    data = sampled.data

    def batched(f: Callable[..., Any], axes: tuple[Any, ...], out_axes: Any) -> Callable[..., Any]:
        """``f(*args, recording)`` over chains and, if they are separate, over units."""
        f = jax.vmap(f, (*axes, None), out_axes)
        return f if target.separate is None else jax.vmap(f, (*axes, 0), out_axes)

    # Traced once, for its shapes and for its use.
    step = jax.jit(batched(kernel.step, (kernel.axes,), (kernel.axes, 0)))

    # The buffer and the chains are handed on from part to part.
    def advance(chain: Any, buffer: _Draw, data: Recording, first: Any, last: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            chain, buffer = carry
            chain, draw = step(chain, data)
            # Warm-up draws go where the first draw will overwrite them.
            row = jnp.maximum(i - kernel.num_discarded, 0)
            return chain, jax.tree.map(lambda b, x: b.at[row].set(x), buffer, draw)

        return lax.fori_loop(first, last, body, (chain, buffer))

    total = kernel.num_discarded + num_samples
    edges = np.linspace(0, total, min(NUM_PARTS, total) + 1).astype(np.int32)
    with tqdm(total=total, desc=f"NUTS ({kernel.name})", disable=not progress_bar) as bar:
        keys = jax.random.split(key, start.step_size.shape)
        inputs = keys, sampled.join(start.position), *start[1:], data
        begin = jax.jit(batched(kernel.begin, (0, 0, 0, 0), kernel.axes))
        chain = jax.eval_shape(begin, *inputs)
        like = jax.eval_shape(step, chain, data)[1]
        buffer = jax.tree.map(lambda x: jnp.zeros((num_samples, *x.shape), x.dtype), like)
        jitted = jax.jit(advance, donate_argnums=(0, 1))
        compiled = jitted.lower(chain, buffer, data, *edges[:2]).compile()
        begin = begin.lower(*inputs).compile()
        started = time.perf_counter()
        stands = batched(lambda chain, _: kernel.stands(chain), (kernel.axes,), 0)
        chain = _at_starts(
            lambda position: begin(keys, position, *inputs[2:]),
            lambda chain: stands(chain, data),
            lambda bad, position: _no_start(target, sampled, bad, position),
            jax.random.fold_in(key, 2),
            inputs[1],
            given is not None,
        )
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            chain, buffer = compiled(chain, buffer, data, first, last)
            bar.set_postfix(divergences=int(buffer.statistics["diverging"].sum()))
            bar.update(int(last - first))
        sampling_time = time.perf_counter() - started
    end = batched(lambda chain, _: kernel.end(chain), (kernel.axes,), 0)
    position, step_size, matrix = end(chain, data)
    posterior, sample_stats = labelled(sampled, target, buffer.position, buffer.statistics)
    posterior.attrs |= {"inference_library": kernel.name, "sampling_time": sampling_time}
    diagnostics = diagnose(sampled, target, posterior, sample_stats)
    state = State(sampled.split(position), step_size, matrix)
    return Fit(target, posterior, with_verdict(sample_stats, diagnostics), diagnostics, state)
