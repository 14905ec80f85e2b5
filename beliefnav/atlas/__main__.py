"""``python -m beliefnav.atlas``: compare every rule with its peer, now, on this machine."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
from tqdm import tqdm

from beliefnav.atlas import Entry, measure, rows
from beliefnav.atlas.problems import network, quadratic


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the atlas and print it.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m beliefnav.atlas", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a table in markdown")
    form.add_argument("--json", action="store_true", help="print a list in JSON")
    parser.add_argument("--float32", action="store_true", help="measure in float32, not float64")
    parser.add_argument("--steps", type=int, default=500, help="steps of each run (500)")
    parser.add_argument("--rule", default="", help="only rules whose name contains this")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1.")
    with jax.enable_x64(not options.float32):
        chosen = [row for row in rows() if options.rule in row.rule]
        if not chosen:
            parser.error(f"no rule's name contains {options.rule!r}.")
        problems = quadratic(options.steps), network(options.steps)
        entries = [measure(row, problems) for row in tqdm(chosen, unit="rule")]
    write = _json if options.json else _markdown if options.markdown else _plain
    print(write(entries))
    failed = [f"{e.rule} = {e.compared_with}" for e in entries if not e.holds]
    if failed:
        sys.exit(f"What is claimed does not hold here: {'; '.join(failed)}.")


def _record(entry: Entry) -> dict[str, Any]:
    facts = [fact._asdict() for fact in entry.assumptions]
    return entry._asdict() | {"assumptions": facts}


def _json(entries: Sequence[Entry]) -> str:
    return json.dumps([_record(entry) for entry in entries], indent=2)


def _verdict(entry: Entry) -> str:
    order = "" if entry.order is None else f", order {entry.order:.2f}"
    return entry.verdict + order + ("" if entry.holds else " (does not hold)")


def _summary(entry: Entry) -> str:
    """The assumptions in a line: those of belief, plan and drift that are not nothing."""
    subjects = ("horizon", "hold", "geometry", "gradient", "curvature", "drift")
    trivial = ("replanned", "identity", "none")
    return "; ".join(
        f"{fact.subject} {fact.value}"
        for fact in entry.assumptions
        if fact.subject in subjects and fact.value not in trivial
    )


def _markdown(entries: Sequence[Entry]) -> str:
    lines = [
        "| rule | assumptions | compared with | deviation | verdict |",
        "|---|---|---|---|---|",
    ]
    for e in entries:
        cells = (e.rule, _summary(e), e.compared_with, f"{e.deviation:.1e}", _verdict(e))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain(entries: Sequence[Entry]) -> str:
    lines = []
    for e in entries:
        lines.append(f"{e.rule} = {e.compared_with}: {e.deviation:.1e}, {_verdict(e)}")
        lines.append(f"    assumes {_summary(e)}")
        if e.reason:
            lines.append(f"    {e.reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    # It is nearly all compilation, which is halved by optimising less. XLA has not started yet.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    main()
