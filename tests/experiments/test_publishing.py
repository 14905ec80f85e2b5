"""Numbers of READMEs come from metrics.json, and stay what it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import experiments
from experiments import EXPERIMENTS, publishing, report
from experiments.options import OptionError, Options

ROOT = Path(experiments.__file__).parent
READMES = [path for path in (ROOT / name / "README.md" for name in EXPERIMENTS) if path.is_file()]
METRICS = {
    "rules": {"adam": {"accuracy": [0.9, 0.97345]}},
    "Adam's 0.9, 0.999": {"loss": 0.25},
    "0.3": 1.0,
    "claims": {"sgd_test_accuracy": {"value": 0.96}},
}


def value(path: str) -> Any:
    return publishing.look_up(METRICS, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("rules.adam.accuracy.1", 0.97345),
        ("rules.adam.accuracy.-1", 0.97345),
        ("Adam's 0.9, 0.999.loss", 0.25),
        ("0.3", 1.0),
        ("claims.sgd_test_accuracy.value", 0.96),
    ],
)
def test_paths_lead_through_names_positions_and_dots(path: str, expected: float) -> None:
    assert value(path) == expected


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("rules.sgd.accuracy", "only adam at 'rules'"),
        ("rules.adam.accuracy.2", "at 'rules.adam.accuracy'"),
        ("accuracy", "only rules, Adam's 0.9, 0.999, 0.3, claims at 'its top'"),
        ("0.3.loss", "only 1.0 at '0.3'"),
    ],
)
def test_paths_that_lead_nowhere_say_what_is_there(path: str, known: str) -> None:
    with pytest.raises(OptionError, match="Cannot find") as error:
        value(path)
    assert known in str(error.value)


def test_numbers_are_written_between_markers_and_nothing_else_changes() -> None:
    text = (
        "Adam reaches <!--{value:rules.adam.accuracy.1:.3f}-->?<!--end-->, that is\n"
        "<!--{value:rules.adam.accuracy.1:.0%}--><!--end--> (loss\n"
        "<!--{value:Adam's 0.9, 0.999.loss:.2g}-->7<!--end-->). <!-- a comment -->\n"
    )
    want = (
        "Adam reaches <!--{value:rules.adam.accuracy.1:.3f}-->0.973<!--end-->, that is\n"
        "<!--{value:rules.adam.accuracy.1:.0%}-->97%<!--end--> (loss\n"
        "<!--{value:Adam's 0.9, 0.999.loss:.2g}-->0.25<!--end-->). <!-- a comment -->\n"
    )
    assert publishing.render(text, value) == want
    assert publishing.render(want, value) == want


def test_numbers_of_what_is_not_published_stay() -> None:
    text = "<!--{value:0.3:.1f}-->?<!--end--> and <!--{value:plasticity.last:.3f}-->0.681<!--end-->"
    want = text.replace("?", "1.0")
    assert publishing.render(text, value, {"plasticity"}) == want
    with pytest.raises(OptionError, match="Cannot find 'plasticity.last'"):
        publishing.render(text, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!--{value:0.3:.3f}-->1", "a marker is not complete"),
        ("<!--{value:0.3}-->1<!--end-->", "a marker is not complete"),
        ("<!--{value:0.3:.3q}-->1<!--end-->", "has no format '.3q'"),
        ("<!--{value:rules:.3f}-->1<!--end-->", "has no format '.3f'"),
        ("<!--{value:loss:.3f}-->1<!--end-->", "Cannot find 'loss'"),
    ],
)
def test_markers_that_cannot_be_rendered_are_named(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        publishing.render(text, value)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of experiments with the READMEs of one that is called as the options here are."""
    here = tmp_path / "experiments"
    gallery, costs = here / "README.md", here / "benchmarks" / "README.md"
    pages = {gallery: ("options",), costs: publishing.BENCHMARKS}
    for name, value in {"HERE": here, "GALLERY": gallery, "COSTS": costs, "PAGES": pages}.items():
        monkeypatch.setattr(publishing, name, value)
    folder = here / "options"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("<!--{value:answer:.1f}--><!--end-->")
    (folder.parent / "README.md").write_text("<!--{value:options.answer:.0f}--><!--end-->")
    return folder


def finish(config: Options) -> None:
    report.perform(lambda _: report.Report([], {"answer": 42}), config)
    (config.folder / "figure.png").write_bytes(b"\x89PNG")
    (config.folder / "posterior.nc").write_bytes(b"large")


def test_a_finished_run_is_published(published: Path, tmp_path: Path) -> None:
    config = Options(out=tmp_path / "run")
    finish(config)
    publishing.publish(config)
    assert {p.name for p in published.iterdir()} == {"README.md", "metrics.json", "figure.png"}
    assert (published / "README.md").read_text() == "<!--{value:answer:.1f}-->42.0<!--end-->"
    gallery = published.parent / "README.md"
    assert gallery.read_text() == "<!--{value:options.answer:.0f}-->42<!--end-->"


def test_a_finished_benchmark_is_published_beside_the_others(
    published: Path, tmp_path: Path
) -> None:
    class Benchmark(Options):
        __module__ = "experiments.benchmarks.averaging"

    config = Benchmark(out=tmp_path / "run")
    with pytest.raises(OptionError, match=r"run `python -m experiments.benchmarks averaging` to"):
        publishing.publish(config)
    report.perform(lambda _: report.Report([], {"answer": 42}), config)
    publishing.COSTS.parent.mkdir()
    text = (
        "<!--{value:averaging.answer:d}-->?<!--end-->, <!--{value:filters.answer:d}-->7<!--end-->"
    )
    publishing.COSTS.write_text(text)
    before = {path: path.read_text() for path in published.parent.glob("*/README.md")}
    publishing.publish(config)
    files = {path.name for path in publishing.COSTS.parent.iterdir()}
    assert files == {"README.md", "averaging.json"}
    before[publishing.COSTS] = text.replace("?", "42")  # filters is not published yet
    assert before == {path: path.read_text() for path in before}


def test_runs_that_are_not_finished_or_quick_are_not_published(
    published: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="has no metrics.json; do run"):
        publishing.publish(Options(out=tmp_path / "run"))
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="Cannot write to"):
        publishing.publish(Options(out=tmp_path / "file"))
    finish(Options(out=tmp_path / "run", quick=True))
    with pytest.raises(OptionError, match="holds a quick run"):
        publishing.publish(Options(out=tmp_path / "run"))
    assert [p.name for p in published.iterdir()] == ["README.md"]


def test_the_numbers_of_a_readme_are_those_of_its_metrics() -> None:
    """Of an experiment that is not published yet the markers must parse; nothing is known else."""
    for readme in READMES:
        text = readme.read_text()
        if (readme.parent / report.METRICS).is_file():
            assert publishing.rendered(readme) == text, readme
        else:
            publishing.render(text, lambda _: 0.5)


@pytest.mark.parametrize("page", publishing.PAGES, ids=lambda path: path.parent.name)
def test_the_numbers_of_a_page_are_those_of_its_metrics(page: Path) -> None:
    text = page.read_text()
    assert publishing.rendered(page) == text
    publishing.render(text, lambda _: 1)


def test_no_line_begins_with_a_marker() -> None:
    """Markdown takes such a line for HTML, and ends the paragraph before it."""
    for readme in (*READMES, *publishing.PAGES):
        assert not re.search(r"^\s*<!--", readme.read_text(), re.M), readme


def test_what_is_published_was_a_full_run_of_that_experiment() -> None:
    of = {path: path.parent.name for path in ROOT.glob(f"*/{report.METRICS}")}
    of |= {path: f"benchmarks/{path.stem}" for path in publishing.COSTS.parent.glob("*.json")}
    for path, name in of.items():
        metrics = json.loads(path.read_text())
        assert metrics["experiment"] == name
        assert metrics["options"]["quick"] is False


def test_the_gallery_shows_every_experiment_and_only_figures_that_are_there() -> None:
    text = publishing.GALLERY.read_text()
    for name in EXPERIMENTS:
        assert f"]({name}" in text, name
    for figure in re.findall(r'src="([^"]+)"', text):
        assert (ROOT / figure).is_file(), figure


def test_nothing_is_published_where_a_readme_asks_for_what_is_not_there(
    published: Path, tmp_path: Path
) -> None:
    config = Options(out=tmp_path / "run")
    finish(config)
    (published.parent / "README.md").write_text("<!--{value:options.question:.0f}--><!--end-->")
    with pytest.raises(OptionError, match=r"Cannot find .*question"):
        publishing.publish(config)
    assert [p.name for p in published.iterdir()] == ["README.md"]
    assert (published / "README.md").read_text() == "<!--{value:answer:.1f}--><!--end-->"
