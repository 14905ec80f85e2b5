"""Figures and numbers of a finished run, brought to where people read them.

A number in a README stands between two comments that GitHub does not show::

    Adam reaches <!--{value:rules.adam.accuracy:.3f}-->0.973<!--end--> after 40 epochs.

The first comment has a path into ``metrics.json`` (names and positions in lists, joined by dots)
and a Python format. Two pages have numbers of several runs: in the gallery,
``experiments/README.md``, the path begins with the name of the experiment, and in
``experiments/benchmarks/README.md`` with that of the benchmark. What stands between the comments is
written by `publish` and checked by a test; in these two, that of runs which are not published yet
is left as it stands.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from beliefnav._files import written_beside
from experiments import EXPERIMENTS
from experiments.benchmarks import BENCHMARKS
from experiments.options import OptionError, Options
from experiments.report import METRICS

HERE = Path(__file__).parent
GALLERY = HERE / "README.md"
COSTS = HERE / "benchmarks" / "README.md"
PAGES = {GALLERY: EXPERIMENTS, COSTS: BENCHMARKS}
"""READMEs with numbers of several runs, and of which."""
OPENING = "<!--{value:"
MARKER = re.compile(
    re.escape(OPENING) + r"(?P<path>[^\n]+?):(?P<format>[^\n:}]*)\}-->.*?<!--end-->"
)


def publish(config: Options) -> None:
    """Copy figures and ``metrics.json`` of a run, and render the numbers of the READMEs.

    Args:
        config: the options of the run; what its folder holds is published.

    Raises:
        OptionError: the run is not finished or was a quick one, or a README asks for a number that
            ``metrics.json`` does not have.
    """
    config.check_folder()
    source, (*above, name) = config.folder, config.name.split("/")
    if not (source / METRICS).is_file():
        raise OptionError(
            f"Cannot publish {name}. This is because {source} has no {METRICS}; do run "
            f"`python -m {'.'.join(('experiments', *above))} {name}` to its end first."
        )
    metrics = json.loads((source / METRICS).read_text())
    if metrics["options"]["quick"]:
        raise OptionError(
            f"Cannot publish {name}. This is because {source} holds a quick run, which is there "
            "for tests; do run it without --quick."
        )
    home = _published(name)
    pages = (COSTS,) if name in BENCHMARKS else (home.parent / "README.md", GALLERY)
    readmes = [path for path in pages if path.is_file()]
    texts = [rendered(readme, {name: metrics}) for readme in readmes]  # or nothing is published
    copies = [(source / METRICS, home)]
    copies += [(path, home.parent / path.name) for path in sorted(source.glob("*.png"))]
    for path, target in copies:
        with written_beside(target) as unfinished:
            shutil.copyfile(path, unfinished)
        print(f"copied {path} to {target}")
    for readme, text in zip(readmes, texts, strict=True):
        with written_beside(readme) as unfinished:
            unfinished.write_text(text)


def rendered(readme: Path, fresh: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The text of a README, with its numbers as ``metrics.json`` has them.

    Args:
        readme: the gallery, the page of the benchmarks, or the README of an experiment.
        fresh: name of a run -> metrics in the place of those that are published.

    Returns:
        The text; where nothing has changed, that of the file.

    Raises:
        OptionError: a marker is not closed, or asks for what is not there.
    """
    if names := PAGES.get(readme.resolve()):
        paths = {name: _published(name) for name in names}
        metrics = {
            name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()
        }
        metrics |= fresh
        left = set(names) - metrics.keys()
    else:
        published = fresh.get(readme.parent.name)
        metrics = published or json.loads((readme.parent / METRICS).read_text())
        left = ()
    return render(readme.read_text(), lambda path: look_up(metrics, path), left)


def _published(name: str) -> Path:
    """Where the metrics of an experiment or benchmark are published."""
    return COSTS.parent / f"{name}.json" if name in BENCHMARKS else HERE / name / METRICS


def render(text: str, value: Callable[[str], Any], left: Collection[str] = ()) -> str:
    """Write numbers between markers.

    Args:
        text: Markdown.
        value: path -> number.
        left: beginnings of the paths whose numbers are left as they stand.

    Returns:
        The text with the numbers; to render it again changes nothing.

    Raises:
        OptionError: a marker is not closed, or its format does not fit.
    """
    if text.count(OPENING) != len(MARKER.findall(text)):
        raise OptionError(
            "Cannot render a README. This is because a marker is not complete; do write "
            "<!--{value:PATH:FORMAT}-->NUMBER<!--end--> on one line."
        )

    def written(match: re.Match[str]) -> str:
        if match["path"].partition(".")[0] in left:
            return match[0]
        number = value(match["path"])
        try:
            shown = format(number, match["format"])
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"Cannot write {match['path']}. This is because {number!r} has no format "
                f"{match['format']!r} ({error}); do correct one of them."
            ) from error
        return f"{match[0].partition('-->')[0]}-->{shown}<!--end-->"

    return MARKER.sub(written, text)


def look_up(metrics: Any, path: str) -> Any:
    """The entry at a dotted path; names may have dots of their own.

    Raises:
        OptionError: there is none; the error says how far the path leads and what is there.
    """
    furthest: list[tuple[str, Any]] = []
    found = list(_entries(metrics, path, "", furthest))
    if found:
        return found[0]
    behind, there = max(furthest, key=lambda item: len(item[0]))
    known = ", ".join(map(str, there)) if isinstance(there, Mapping) else f"{there!r:.60}"
    raise OptionError(
        f"Cannot find {path!r} in the metrics. This is because there is only "
        f"{known or 'nothing'} at {behind.rstrip('.') or 'its top'!r}; do correct the path, or "
        "publish the run that has it."
    )


def _entries(value: Any, path: str, behind: str, furthest: list[tuple[str, Any]]) -> Any:
    """All entries that a path may mean, and where it leads nowhere."""
    furthest.append((behind, value))
    for end in [*(match.start() for match in re.finditer(r"\.", path)), len(path)]:
        name, rest = path[:end], path[end + 1 :]
        if isinstance(value, Mapping) and name in value:
            entry = value[name]
        elif isinstance(value, list) and re.fullmatch(r"-?\d+", name) and _within(value, int(name)):
            entry = value[int(name)]
        else:
            continue
        if end == len(path):
            yield entry
        else:
            yield from _entries(entry, rest, f"{behind}{name}.", furthest)


def _within(values: list[Any], position: int) -> bool:
    return -len(values) <= position < len(values)
