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

Each rule runs beside a second implementation for 500 steps on the same gradients. `python -m
beliefnav.atlas --markdown` prints this page. A deviation is that of the parameters in float64,
divided by the distance that they travelled. The table says what each deviation is claimed to be at
most, on every machine; `python -m beliefnav.atlas` prints what the deviations are on yours. A row
with the verdict `limit` has a small parameter s: its deviation is that at s = 1e-4, and the
deviation vanishes as the power of s that the table calls its order.

**What `exact` means, and what it does not.** An exact row says that two programs take the same
steps, up to rounding. The row does not derive either program. Every rule that moves each parameter
against the mean m of its gradient, by some amount u, is the ballistic step on a curvature of
(m/u)^2; so some belief takes the steps of a known rule, whatever the rule is. What a row is worth
depends on its belief:
"""
KIND_NOTES = """\
- *A model, filtered exactly*: one state-space model predicts the readings, and the filter has the
  posterior of that model, under the assumption that the model is right.
- *Two models of the same readings, held apart*: one model reads the gradient, another model reads
  its square or a sensor, as if the two readings were independent. No joint model is given.
- *A filter without a model*: the belief computes averages, and no generative model is known whose
  filter has these averages.
- *A curvature read off the mean*: the rule is represented by a curvature that is a function of the
  mean of the gradient. No model of the gradient says so.
"""
FORBIDDING = """\
A belief about gradients can be wrong. The column "forbids" names streams of gradients that speak
against the belief of the row. The belief predicts each gradient from those before. The verdict on a
stream is "against" if the errors of these predictions, or the sizes of the errors, are correlated
with those of the step before. Each stream has 400 steps and 4 entries. The column names a kind of
stream if the verdict is "against" for at least 90 % of 200 such streams, and for at most 5 % of 200
streams that the belief itself draws (`beliefnav.atlas.forbidding`):

- `unrelated`: a constant mean of 1 and independent noise of variance 1;
- `correlated`: three quarters of a gradient are left a step later, without other noise;
- `bursts`: independent gradients that are three times as large in every second 20 steps;
- `drifting`: a mean that walks at random and independent noise, which is the model of a moving
  average with a memory of 10 steps.

The column separates rules little. `correlated` and `bursts` speak against every belief here that
has a model of gradients. `drifting` is missing only where a moving mean with a memory of 10 to 30
steps is the only part of the belief that has a model. `unrelated` is there only where the memory is
1 step, and in two rows with Nesterov's forecast. One part of a belief is enough to forbid a stream:
Adam's mean allows `drifting`, and the belief behind its mean square, which expects gradients around
0, does not. These streams do not tell rows with the same entry apart. "Nothing" stands where a
belief has no model of gradients.

| forbids | rows |
|---|---|
"""
CHOICES = """\
The column "forbids" says nothing of the curvature of a loss. Rules such as RMSprop and Adam read
the mean square of gradients as curvature, and gradients alone cannot contradict that.

The column "choices" has the number of assumptions that a rule is made of, and the number of
arguments that the other implementation is given. Every row has more choices than arguments: the
belief is chosen so that it takes the steps of a known rule, and the choices say what one has to
believe for it.
"""
WRITTEN_BY = """\
- *Optax as it ships*: an optimizer of optax, with its own arguments. Other people wrote the code.
- *Compositions of optax's parts*: parts that optax ships, put together in this repository.
- *Formulas of this repository*: `beliefnav.atlas.peers`, written here from the equations of a paper
  or a textbook; some stand around an optimizer of optax. These formulas share no code with
  `beliefnav.rules`, but they share its authors: such a row finds errors of programming, and not
  errors in the reading of the paper.
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
    rivals = [", ".join(forbids(one)) or "nothing" for one in assumed]
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
        KIND_NOTES,
        FORBIDDING
        + "\n".join(f"| {name} | {rivals.count(name)} |" for name in sorted(set(rivals))),
        "",
        CHOICES,
        f"Of {len(chosen)} rows, {len(exact)} are exact:",
        "",
        "| compared with | exact rows |",
        "|---|---|",
        *(f"| {who} | {exact.count(who)} |" for who in (SHIPPED, COMPOSED, FORMULA)),
        "",
        WRITTEN_BY,
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    for row, what, streams in zip(chosen, kinds, rivals, strict=True):
        facts, bound = assumptions_of(row, small).facts(), f"≤ {row.bound:g}"
        number = "" if row.numbers is None else f" for {counted(row.numbers, 'number')}"
        order = f", order {row.order:g}" if row.verdict == LIMIT else ""
        verdict = row.verdict + order + (" (does not hold)" if row in broken else "")
        cells = (
            *(row.rule, summary(facts), what, f"{len(facts)}{number}"),
            *(streams, row.compared_with),
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
