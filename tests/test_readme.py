"""What the READMEs show runs as it stands, and is right; what they name exists."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import beliefnav
from beliefnav import atlas, beliefs, rules, wrappers
from beliefnav.atlas.problems import quadratic
from beliefnav.atlas.table import exact
from experiments.__main__ import EXPERIMENTS
from experiments.benchmarks import BENCHMARKS
from experiments.plasticity.training import Trainer
from experiments.tasks import measuring

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HOSTS = ROOT / ".github" / "HOSTS.md"
READMES = (README, HOSTS, *sorted(ROOT.glob("experiments/**/README.md")))
PROSE = (*READMES, ROOT / ".github" / "CONTRIBUTING.md")

Place = tuple[str, str]
"""A README, relative to the root, and a heading in it."""
Names = Mapping[str, Any]
"""What the code under a heading has defined."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sections(path: Path) -> dict[str, str]:
    """Heading -> the text below it, up to the next heading of any level."""
    outside = re.sub(
        r"```.*?```", lambda code: code[0].replace("\n#", "\n "), path.read_text(), flags=re.S
    )
    spans = [(m[1], m.start(), m.end()) for m in re.finditer(r"^#+ (.+)$", outside, re.M)]
    ends = [start for _, start, _ in spans[1:]] + [None]
    texts = {h: path.read_text()[a:b] for (h, _, a), b in zip(spans, ends, strict=True)}
    assert len(texts) == len(spans), f"{named(path)}: two headings are equal"
    return texts


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def code() -> dict[Place, str]:
    """The one block of Python under each heading that has one."""
    found = {}
    for path in READMES:
        for heading, text in sections(path).items():
            if blocks(text):
                (found[named(path), heading],) = blocks(text)
    return found


def run(*places: Place) -> dict[str, Any]:
    """Run the code under some headings, one after the other."""
    names: dict[str, Any] = {}
    for place in places:
        exec(code()[place], names)
    return names


# --- code -----------------------------------------------------------------------------------------

CHECKS: dict[Place, tuple[Callable[[Names, str], None], tuple[Place, ...]]] = {}
"""Place -> what is checked of its names and of what it prints, and the places that go before."""


def says(path: str, heading: str, after: tuple[Place, ...] = ()) -> Callable[..., Any]:
    def register(check: Callable[[Names, str], None]) -> Callable[[Names, str], None]:
        CHECKS[path, heading] = check, after
        return check

    return register


BELIEF, POLICY = ("README.md", "A belief"), ("README.md", "A policy")
DATA = (named(HOSTS), "Data")


@says("README.md", "Ten lines")
def is_adam(names: Names, printed: str) -> None:
    params: Any = {"w": jnp.array([3.0, -2.0])}
    adam = optax.adam(1e-1, eps=1e-8)
    state = adam.init(params)
    for _ in range(100):
        updates, state = adam.update({"w": 2 * params["w"]}, state)
        params = optax.apply_updates(params, updates)
    # Float32 rounding of optax's 1 - b2**t, a relative 5e-5 at the first step.
    np.testing.assert_allclose(names["params"]["w"], params["w"], atol=1e-3)
    assert printed


@says(*BELIEF)
def averages_at_a_fixed_gain(names: Names, printed: str) -> None:
    filter_ = names["FixedGain"](0.25).filter()
    state = filter_.init({"w": jnp.zeros(2)})
    for reading in ([4.0, 8.0], [jnp.nan, jnp.inf], [5.0, 2.0]):
        state = filter_.update(filter_.predict(state), {"w": jnp.array(reading)})
    # 4/4 = 1, unseen, 1 + (5 - 1)/4; 8/4 = 2, unseen, 2 + 0.
    assert state.posterior().gradient_mean["w"].tolist() == [2.0, 2.0]
    assert issubclass(names["FixedGain"], beliefs.Belief)


@says(*POLICY, after=(BELIEF,))
def goes_no_further(names: Names, printed: str) -> None:
    for mean, direction in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4]), ([0.0, 0.0],) * 2):
        believed = beliefnav.Posterior(gradient_mean={"w": jnp.array(mean)})
        found = names["at_most"](1.0).step(believed, None)["w"]
        np.testing.assert_allclose(found, direction, rtol=1e-6)


@says("README.md", "A rule", after=(BELIEF, POLICY))
def is_seen_in_the_atlas(names: Names, printed: str) -> None:
    assert names["row"].verdict == "exact" and names["row"].holds
    assert "horizon        0 steps" in printed and "exact" in printed
    # On this problem the clip acts, and not always: each part of the peer is needed.
    rate, clip = optax.scale_by_learning_rate(0.1), optax.clip_by_global_norm(10.0)
    unclipped = optax.chain(optax.ema(0.9, debias=False), rate)
    corrected = optax.chain(optax.ema(0.9), clip, rate)
    for other in (unclipped, corrected):
        assert not atlas.measure(
            exact("mine", "other", names["mine"], other), [quadratic(100)]
        ).holds


@says("experiments/interpolation/README.md", "Read assumptions, and change one")
def is_explained_and_built_again(names: Names, printed: str) -> None:
    words = " ".join(printed.split())
    for fact in ("memory 10 steps", "memory 1,000 steps", "0 observations", "69,314 steps"):
        assert fact in words
    params: Any = jnp.array([3.0, -2.0])
    peer = optax.lion(1e-3, weight_decay=0.0)
    for optimizer in (names["optimizer"], peer):
        updates: Any = optimizer.update(params, optimizer.init(params), params)[0]
        np.testing.assert_allclose(updates, [-1e-3, 1e-3], rtol=1e-6)


@says("experiments/curvature/README.md", "Use the belief yourself")
def learns_the_curvature(names: Names, printed: str) -> None:
    smoothed, curvature = names["smoothed"], names["curvature"]
    deviation = np.sqrt(smoothed.curvature_variance[-1])
    # Three curvatures within four standard deviations; the steepest is known to a tenth.
    assert (np.abs(smoothed.curvature_mean[-1] - curvature) < 4 * deviation).all()
    assert deviation[2] < 1 < curvature[2] / 5
    belief = names["posterior"](names["state"])
    believed = belief.curvature_mean
    assert believed[0] < believed[1] < believed[2]
    # What the README says of the optimizer's own belief, to the digits that it prints.
    np.testing.assert_allclose(believed, [0.10, 0.95, 9.97], atol=0.005)
    np.testing.assert_allclose(np.sqrt(belief.curvature_variance), [0.02, 0.04, 0.08], atol=0.005)


@says("experiments/double_well/README.md", "Plan a path yourself")
def escapes(names: Names, printed: str) -> None:
    best = names["plan"](names["guesses"]).best
    # The global minimum, to what is left of the way after four units of time.
    np.testing.assert_allclose(best.params[-1], [1.0574, 0.0], atol=1e-2)


@says("experiments/geometry/README.md", "A policy for a quadratic loss yourself")
def is_trapped(names: Names, printed: str) -> None:
    # 4 / (4 + 100 - 10i) of -0.5i, in float32.
    np.testing.assert_allclose(names["policy"].equilibrium, [0.0018322, -0.0190546], atol=1e-6)


@says("experiments/gradient_noise/README.md", "Learn a belief yourself")
def finds_the_memory(names: Names, printed: str) -> None:
    assert "correlation" in printed
    low, high = names["fit"].posterior["correlation"].quantile([0.005, 0.995]).values
    assert low < 0.9 < high


@says("experiments/task_switch/README.md", "Use it yourself")
def suspects_the_switch(names: Names, printed: str) -> None:
    assert len(printed.split()) >= 5
    suspicion, params = names["suspicion"], names["params"]
    assert suspicion[50] > 0.99
    assert np.delete(suspicion, 50).max() < 0.5
    # The steepest weight is where the optimum was, then where it is.
    np.testing.assert_allclose(params[[49, 99], 0], [1.0, -1.0], atol=0.2)


@says("experiments/plasticity/README.md", "Use it yourself")
def tries_its_layers(names: Names, printed: str) -> None:
    trials = names["trials"]
    assert trials[399] == 0 and trials[400] == 1


@says("experiments/plasticity/README.md", "Streams, methods and networks of your own")
def is_a_method(names: Names, printed: str) -> None:
    network = names["wide"]((2,), 2)
    trainer = Trainer(names["turning"](None), network, names["lion"])
    lives = trainer.live({"learning_rate": 1e-3}, jax.random.split(jax.random.key(0), 2), tasks=3)
    # A guess has 0.5; the line is found within a task.
    assert lives.online.mean() > 0.7 and lives.end.mean() > 0.9


@says(*DATA)
def turns_over(names: Names, printed: str) -> None:
    x, y = names["batch"](49)
    np.testing.assert_allclose(y, 3 * jnp.sin(x[:, 0]), rtol=1e-6)
    x, y = names["batch"](50)
    np.testing.assert_allclose(y, -3 * jnp.sin(x[:, 0]), rtol=1e-6)
    assert float(names["half_mean_square"](y + 2, y)) == pytest.approx(2)


@says(named(HOSTS), "flax.nnx", after=(DATA,))
@says(named(HOSTS), "flax.linen", after=(DATA,))
@says(named(HOSTS), "equinox", after=(DATA,))
def suspects_the_opposite_task(names: Names, printed: str) -> None:
    suspicion = np.array(names["suspicion"])
    assert suspicion[50] > 0.99
    assert np.delete(suspicion, 50).max() < 0.5
    # Half the mean square of what is to be predicted is 2; the statistics are those of the path.
    assert float(re.findall(r"\d\.\d+", printed)[0]) < 0.2


@says(named(HOSTS), "flax.nnx, an average", after=(DATA, (named(HOSTS), "flax.nnx")))
@says(named(HOSTS), "equinox, an average", after=(DATA, (named(HOSTS), "equinox")))
def has_statistics_of_the_average(names: Names, printed: str) -> None:
    averaged, net, batch = names["averaged"], names["net"], names["batch"]
    if "fresh" in names:
        index, hidden = net.norm.batch_state_index, jax.vmap(averaged.hidden)
        statistics, of_path = (s.get(index)[0] for s in (names["fresh"], names["state"]))
    else:
        hidden = averaged.hidden
        statistics, of_path = averaged.norm.mean[...], net.norm.mean[...]
    want = of_path
    for t in range(50):
        want = 0.9 * want + 0.1 * hidden(batch(t)[0]).mean(0)
    np.testing.assert_allclose(statistics, want, rtol=1e-4, atol=1e-5)
    # Those of the path, of which 0.9^50 is left, are others.
    assert np.abs(of_path - want).max() > 1e-3
    assert float(re.findall(r"\d\.\d+", printed)[-1]) < 0.2


@says("experiments/tasks/README.md", "A task or rule of your own")
def is_a_task(names: Names, printed: str) -> None:
    task, setup = names["parabola"](), measuring.Setup(names["lion"])
    scores = measuring.train(task, setup, (0.01,), jax.random.split(jax.random.key(0), 5))
    starts = [task.score(task.init(jax.random.key(seed)), "test").error for seed in range(5)]
    # A hundred steps of 0.01 are about one standard deviation of the start.
    assert scores["test error"].mean() < np.mean(starts)


@pytest.mark.parametrize("place", CHECKS, ids=": ".join)
def test_code_runs_and_is_right(
    place: Place, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    check, after = CHECKS[place]
    if "numpyro" in code()[place]:
        request.getfixturevalue("rank_promotion")
    names = run(*after, place)
    check(names, capsys.readouterr().out)


def test_all_code_is_checked() -> None:
    everywhere = sum(len(blocks(path.read_text())) for path in READMES)
    assert set(code()) == set(CHECKS) and everywhere == len(CHECKS)


# --- prose ----------------------------------------------------------------------------------------


def test_the_front_page_is_short() -> None:
    assert len(README.read_bytes()) < 10_000


def test_every_experiment_has_its_readme() -> None:
    # Two claim nothing: one says whether a device computes what a CPU does, one is a bench.
    for name in {*EXPERIMENTS, "benchmarks"} - {"device_check", "tasks"}:
        text = (ROOT / "experiments" / name / "README.md").read_text()
        runs = f"python -m experiments.{name} " if name == "benchmarks" else f"experiments {name}\n"
        assert runs in text, name
        assert name == "benchmarks" or "refute" in text, name
        assert f"experiments/{name})" in README.read_text(), name


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_commands_exist(path: Path) -> None:
    known = {"experiments": EXPERIMENTS, "experiments.benchmarks": BENCHMARKS}
    for module, name in re.findall(r"python -m (experiments[.\w]*) (\w+)", path.read_text()):
        assert name in ("NAME", "all") or name in known[module], (module, name)


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_names_in_the_text_exist(path: Path) -> None:
    """Dotted names of the library between backticks, and beliefs that stand there alone."""
    owners = {name: getattr(beliefnav, name) for name in beliefnav.__all__}
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for quoted in re.findall(r"`([^`]+)`", text):
        for owner, name in re.findall(r"\b([a-zA-Z]+)\.(\w+)", quoted):
            if isinstance(owners.get(owner), ModuleType | type) and name not in ("NAME", "py"):
                fields = getattr(owners[owner], "__annotations__", {})
                assert name in fields or hasattr(owners[owner], name), f"{owner}.{name}"
        if re.fullmatch(r"([A-Z][a-z]+){2,}", quoted):
            assert hasattr(beliefs, quoted), quoted


def test_what_is_said_of_plasticity() -> None:
    """The numbers are those of the experiment."""
    metrics = json.loads((ROOT / "experiments" / "plasticity" / "metrics.json").read_text())
    of = metrics["streams"]["random_labels"]
    last = [of[name]["last"][0] for name in ("hazard_filter", "adam_3e-3", "adam_restarted")]
    said = "has {:.3f}, Adam {:.3f}, Adam told to restart {:.3f}.".format(*last)
    assert said in README.read_text()


def test_what_is_said_of_costs() -> None:
    """The numbers are those of the benchmarks."""
    folder = ROOT / "experiments" / "benchmarks"
    of = {
        n: json.loads((folder / f"{n}.json").read_text()) for n in ("optimizer_step", "resetting")
    }
    steps, batches = of["optimizer_step"], of["resetting"]["batches_of"]
    plain, donated = (steps[how]["1"] for how in ("not donated", "donated"))

    def times(table: Mapping[str, Any], name: str) -> float:
        return table[name]["times_optax_adam"]

    text = sections(README)["What it costs"]
    noise = steps["equals_differ_by"]
    adam = f"| {times(plain, 'rules.adam'):.2f} times that of `optax.adam` (noise: {noise:.2f}) |"
    assert f"| a step of `rules.adam` {adam}" in text
    secant = [f"{times(table, 'rules.secant'):.2g} times" for table in (plain, donated)]
    assert f"| a step of `rules.secant` | {secant[0]}, donated {secant[1]} |" in text
    small, large = batches["128"], batches["512"]
    filters = [f"{table['hazard_filter, batch']['times_adam']:.1f}" for table in (small, large)]
    assert f"`rules.hazard_filter` | {filters[0]} and {filters[1]} times Adam |" in text
    both = [table["two_hypothesis(adam)"]["times_adam_and_forward"] for table in (small, large)]
    assert f"| {both[0]:.2f} and {both[1]:.2f} times Adam plus a forward pass |" in text


def test_what_is_said_of_the_atlas() -> None:
    """It is counted in the table that `beliefnav.atlas` writes, which a test measures again."""
    table = (ROOT / "beliefnav" / "atlas" / "README.md").read_text().splitlines()
    first = next(i for i, line in enumerate(table) if line.startswith("| rule | "))
    rows = [line.strip("| ").split(" | ") for line in table[first + 2 :]]
    titles = table[first].strip("| ").split(" | ")
    forbids, compared, deviation, verdict = map(
        titles.index, ("forbids", "compared with", "deviation", "verdict")
    )
    exactly = [row for row in rows if row[verdict] == "exact"]
    said = re.search(r"\[(\d+) of the (\d+) rows\]", README.read_text())
    assert said and [int(n) for n in said.groups()] == [len(exactly), len(rows)]
    bounds = [row[deviation] for row in exactly]
    assert set(bounds) == {"≤ 1e-12", "≤ 1e-11", "≤ 1e-08"} and bounds.count("≤ 1e-08") == 1
    assert all(row[forbids] for row in rows)
    peers = {row[compared] for row in exactly}
    named = ("sgd", "sgd(momentum)", "rmsprop", "adam", "adamw", "lion", "nadam")
    assert {f"optax.{rule}" for rule in named} <= peers
    assert {"algorithm 1 of its paper", "singular values set to 1"} <= peers
    (apart,) = (row for row in rows if row[compared] == "optax.contrib.scale_by_muon")
    assert apart[verdict] == "approximate"


def test_what_is_said_of_memory() -> None:
    """Numbers a parameter in the state, but for scalars."""
    inner = optax.adam(1e-3)
    params = jnp.zeros(1000)
    for name, optimizer in {
        "rules.adam": rules.adam(1e-3),
        "rules.secant": rules.secant(0.1),
        "rules.hazard_filter": rules.hazard_filter(1e-3, prior_variance=1.0, examples=32),
        "wrappers.two_hypothesis": wrappers.two_hypothesis(inner, hazard=1e-3, examples=32),
    }.items():
        size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(optimizer.init(params)))
        said = re.search(rf"`{re.escape(name)}`.*\| (\d) numbers a parameter", README.read_text())
        assert said and int(said[1]) == size // 1000, name
