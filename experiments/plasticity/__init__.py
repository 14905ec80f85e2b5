"""Learning goes on in networks, without task boundaries, with one setting for all streams.

Ten streams of tasks: fresh random labels, permuted pixels, one ordinary task (on these three the
one setting of every method is chosen), permuted labels, two classes that swap, tasks that recur,
tasks of unequal length, inputs that drift, a convolutional network on clothes, one task of signals.
Every method chooses among twelve settings on a quarter of the tasks (`tuning`), and is then run on
other seeds, at the best setting for the stream and at its one setting for all streams.

Claimed of `config.ONE` at `config.ONE_SETTING`, told nothing: on at least 70 % of the held-out
streams it is not worse than the best method of the stream (the lower end of the 95 % interval of
the difference, paired by seed, is above -0.01 in accuracy, or -2 % of an error); where two classes
swap it ends at 0.97 or more; from the first to the last tenth of the tasks it loses at most 0.02
more than an oracle that begins anew with every task; one ordinary task costs at most 0.003 of
online accuracy against Adam. On random labels Adam at 3e-3 loses its plasticity, and no part of
`beliefnav.rules.hazard_filter` keeps it alone. Refuted if a claim in ``metrics.json`` fails.

Lives are kept setting by setting (`experiments.kept`): a run that was cut off goes on where it was,
and a second process with ``--backwards`` and the same folder shares the work.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from experiments import report
from experiments.plasticity import claims, drawing, results, sensitivity, tuning
from experiments.plasticity.claims import Tables
from experiments.plasticity.config import ONE, ONE_SETTING, Config
from experiments.plasticity.results import Found, Work
from experiments.plasticity.streams import DEVELOPMENT

__all__ = ["Config", "run"]

Table = dict[str, dict[str, Found]]


def run(config: Config) -> report.Report:
    """Run all methods on all streams, check the claims, draw."""
    work = Work(config)
    kinds = {name: method.kind for name, method in work.methods.items()}
    plan = [(s, m) for s in work.streams for m in work.methods if work.belongs(s, m)]
    best = _table(plan, config, work.tuned)
    one = _one_settings(config, best, kinds)
    again = [(s, m) for s, m in plan if m in one]
    at_one = _table(again, config, lambda s, m: work.at(s, m, one[m]))
    classifies = {name: stream.classifies for name, stream in work.streams.items()}
    tables = Tables(best, at_one, classifies)
    said = claims.summary(tables, kinds)
    curves: dict[str, Any] = {}
    ranked = said.get("ranks", {})
    field = [name for name in ranked if kinds[name] == "field"]
    if field and {ONE, "hazard_filter"} <= one.keys() and set(sensitivity.STREAMS) <= set(best):
        strongest = min(field, key=lambda name: ranked[name]["rank"])
        of = sensitivity.curves(strongest, one)
        points = [(s, m, at) for s, _, m, at in sensitivity.plan(of)]
        for stream, method, at in tqdm(points[:: -1 if config.backwards else 1], unit="point"):
            work.at(stream, method, at)
        curves = sensitivity.measure(work, of)
    drawing.draw(tables, work.methods, curves, config.folder)
    measured = {
        "streams": _metrics(best),
        "at_one_setting": _metrics(at_one),
        "one_settings": one,
        "edges": _edges(best),
        "sensitivity": curves,
        "read_from_files": work.read,
    }
    return report.Report(claims.claims(tables, said, quick=config.quick), {**measured, **said})


def _table(
    plan: Iterable[tuple[str, str]], config: Config, found: Callable[[str, str], Found]
) -> Table:
    """Stream -> method -> what was found, in the order of the plan, whichever way it is worked."""
    plan = list(plan)
    order = plan[::-1] if config.backwards else plan
    with tqdm(order, unit="method") as bar:
        of = {}
        for place in bar:
            bar.set_description(", ".join(place))
            of[place] = found(*place)
    table: Table = {stream: {} for stream, _ in plan}
    for stream, method in plan:
        table[stream][method] = of[stream, method]
    return table


def _one_settings(config: Config, best: Table, kinds: dict[str, str]) -> dict[str, Any]:
    """Method -> its one setting: that which regrets least on the development streams."""
    one: dict[str, Any] = {}
    if config.quick:
        return {ONE: dict(ONE_SETTING)} if ONE in config.run_methods else {}
    if set(DEVELOPMENT) <= best.keys():
        for name, kind in kinds.items():
            tuned = [best[stream][name].tuned for stream in DEVELOPMENT if name in best[stream]]
            if kind in ("field", "ours", "told") and len(tuned) == len(DEVELOPMENT):
                one[name] = tuning.for_all([t for t in tuned if t is not None])
    if ONE in kinds:
        one[ONE] = dict(ONE_SETTING)
    return one


def _edges(table: Table) -> dict[str, Any]:
    """How many chosen settings lie on an edge of what was tried, and which."""
    tuned = {f"{s}, {m}": found.tuned for s, of in table.items() for m, found in of.items()}
    where = {name: of.edges for name, of in tuned.items() if of is not None and of.edges}
    return {"count": len(where), "of": len(tuned), "where": where}


def _metrics(table: Table) -> dict[str, dict[str, Any]]:
    return {
        stream: {method: results.metrics(found) for method, found in of.items()}
        for stream, of in table.items()
    }
