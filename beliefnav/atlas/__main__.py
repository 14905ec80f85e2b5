"""``python -m beliefnav.atlas``: compare every rule with its peer, now, on this machine.

Plain and in JSON it prints what was measured; in markdown what is claimed, which is the same on
every machine, marked where this one does not bear it out.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from beliefnav._files import check_writable, written_beside
from beliefnav._format import counted
from beliefnav.atlas.forbidding import KINDS, forbids, kind
from beliefnav.atlas.measuring import Measurement, assumptions_of, inside, measure
from beliefnav.atlas.problems import network, quadratic
from beliefnav.atlas.table import COMPOSED, EXACT, FORMULA, LIMIT, SHIPPED, Row, rows
from beliefnav.rules._rule import Fact

__all__ = ["main", "markdown", "summary"]

HEAD = """\
# The atlas of learning rules

Each rule beside an independent implementation, for 500 steps on the same gradients, as printed by
`python -m beliefnav.atlas --markdown`. The deviation is that of the parameters in float64, relative
to the way that they went. The table says what it is claimed to be at most, on any machine;
`python -m beliefnav.atlas` prints what it is on yours. A limit is one of a small parameter s: its
deviation is that at s = 1e-4, and vanishes as the power of s that is called its order.

**What `exact` does not say.** Two programs that take the same steps are equal; that does not derive
one of them. Every rule that moves each parameter against the mean m of its gradient, by any amount
u, is the ballistic step on a curvature of (m/u)^2. What a row is worth depends on its belief:
"""
FORBIDDING = """\
A belief of gradients can be wrong, which the column "forbids" says. Named there are streams of
gradients that speak against the belief: it predicts each gradient from those before, and its errors
or their sizes depend on those of the step before. Of 200 streams of 400 steps and 4 entries, at
least 90 % of the named ones do so, and at most 5 % of those that the belief itself predicts.
`correlated` gradients keep three quarters from step to step, `unrelated` ones have a constant mean
and noise, and `bursts` are three times as large in every second 20 steps
(`beliefnav.atlas.forbidding`). "Nothing" stands where a belief has no model of gradients.

None of this says anything of the curvature of a loss. Rules such as RMSprop and Adam read the mean
square of gradients as curvature; gradients alone cannot contradict that.

The column "choices" has the number of assumptions that a rule is made of, beside the numbers that
the other implementation is given. There are more choices than numbers everywhere: a belief that
takes the steps of a known rule can be found, and the choices say what one has to believe for it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the atlas and print it.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m beliefnav.atlas", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print what is claimed in markdown")
    form.add_argument("--json", action="store_true", help="print a list in JSON")
    parser.add_argument("--float32", action="store_true", help="measure in float32, not float64")
    parser.add_argument("--steps", type=int, default=500, help="steps of each run (500)")
    parser.add_argument("--rule", default="", help="only rules whose name contains this")
    parser.add_argument("--out", type=Path, help="write to this file, and do not print")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1.")
    if options.out is not None:
        try:
            check_writable(options.out)
        except OSError as error:
            parser.error(f"--out: cannot write {options.out}: {error.strerror}.")
    with jax.enable_x64(not options.float32):
        chosen = [row for row in rows() if options.rule in row.rule]
        if not chosen:
            parser.error(f"no rule's name contains {options.rule!r}.")
        problems = quadratic(options.steps), network(options.steps)
        measured = [measure(row, problems) for row in tqdm(chosen, unit="rule")]
    broken = [row for row, e in zip(chosen, measured, strict=True) if not e.holds]
    if options.markdown:
        text = markdown(chosen, broken)
    else:
        text = _json(measured) if options.json else _plain(measured)
    if options.out is None:
        print(text)
    else:
        with written_beside(options.out) as unfinished:
            unfinished.write_text(f"{text}\n")
    failed = [f"{e.rule} = {e.compared_with}" for e in measured if not e.holds]
    if failed:
        sys.exit(f"What is claimed does not hold here: {'; '.join(failed)}.")


def _record(one: Measurement) -> dict[str, Any]:
    facts = [fact._asdict() for fact in one.assumptions]
    return one._asdict() | {"assumptions": facts}


def _json(measured: Sequence[Measurement]) -> str:
    return json.dumps([_record(one) for one in measured], indent=2)


def _verdict(one: Measurement) -> str:
    order = "" if one.order is None else f", order {one.order:.2f}"
    return one.verdict + order + ("" if one.holds else " (does not hold)")


def summary(facts: Sequence[Fact]) -> str:
    """Assumptions in a line: those of belief, plan and drift that are not nothing."""
    subjects = ("horizon", "hold", "geometry", "gradient", "curvature", "drift")
    subjects = ("optimum", "optimum reading", *subjects)
    trivial = ("replanned", "identity", "none", "every step")
    return "; ".join(
        f"{fact.subject} {fact.value}"
        for fact in facts
        if fact.subject in subjects and fact.value not in trivial
    )


def markdown(chosen: Sequence[Row], broken: Sequence[Row] = ()) -> str:
    """What is claimed of rows, for which none of them has to run.

    Args:
        chosen: the rows.
        broken: those of them whose claim was measured and does not hold.

    Returns:
        A page in markdown.
    """
    exact = [row.written_by for row in chosen if row.verdict == EXACT]
    columns = (
        *("rule", "assumptions", "its belief is", "choices", "forbids"),
        *("compared with", "deviation", "verdict", "reason"),
    )
    small = quadratic(1)
    assumed = [inside(assumptions_of(row, small)) for row in chosen]
    kinds = [kind(one) for one in assumed]
    lines = [
        HEAD,
        "| the belief is | rows | of them exact |",
        "|---|---|---|",
        *(
            f"| {name} | {kinds.count(name)} | "
            f"{sum(k == name and r.verdict == EXACT for k, r in zip(kinds, chosen, strict=True))} |"
            for name in KINDS
        ),
        "",
        FORBIDDING,
        f"{sum(bool(forbids(one)) for one in assumed)} of {len(chosen)} rows forbid something.",
        "",
        f"Of {len(chosen)} rows, {len(exact)} are exact:",
        "",
        "| compared with | exact rows |",
        "|---|---|",
        *(f"| {who} | {exact.count(who)} |" for who in (SHIPPED, COMPOSED, FORMULA)),
        "",
        "The formulas are in `beliefnav.atlas.peers`; some stand around an optimizer of optax.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    for row, one, what in zip(chosen, assumed, kinds, strict=True):
        facts, bound = assumptions_of(row, small).facts(), f"≤ {row.bound:g}"
        number = "" if row.numbers is None else f" for {counted(row.numbers, 'number')}"
        order = f", order {row.order:g}" if row.verdict == LIMIT else ""
        verdict = row.verdict + order + (" (does not hold)" if row in broken else "")
        cells = (
            *(row.rule, summary(facts), what, f"{len(facts)}{number}"),
            *(", ".join(forbids(one)) or "nothing", row.compared_with),
            *(bound, verdict, row.reason),
        )
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def _plain(measured: Sequence[Measurement]) -> str:
    lines = []
    for e in measured:
        lines.append(f"{e.rule} = {e.compared_with}: {e.deviation:.1e}, {_verdict(e)}")
        lines.append(f"    assumes {summary(e.assumptions)}")
        if e.reason:
            lines.append(f"    {e.reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    # It is nearly all compilation, which is halved by optimising less. XLA has not started yet.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    main()
