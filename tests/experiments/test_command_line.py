"""The command line: what it lists, refuses, exits with, and how a run of all goes on."""

import dataclasses
import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import EXPERIMENTS, command_line, everything, kept, report
from experiments.benchmarks import BENCHMARKS
from experiments.options import OptionError, Options

COMMAND = [sys.executable, "-m", "experiments"]


def test_unknown_experiment_and_list() -> None:
    listing = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert "classify" in listing.stdout and "device_check" in listing.stdout
    unknown = subprocess.run([*COMMAND, "clasify"], capture_output=True, text=True)
    assert unknown.returncode != 0 and "classify, double_well" in unknown.stderr


def test_publishing_what_was_not_run_says_what_to_do(tmp_path: Path) -> None:
    command = [*COMMAND, "classify", "--publish", "--out", str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "do run `python -m experiments classify` to its end first" in refused.stderr


class Module:
    """A module with one claim, which holds or does not."""

    __doc__ = "An experiment that does nothing."
    Config = Options

    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, config: Options) -> report.Report:
        return report.Report([report.at_least("value", self.value, 1.0)], {})


@pytest.mark.parametrize("value", [1.0, 0.5, float("nan")])
def test_a_claim_that_fails_exits_with_an_error(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line.importlib, "import_module", lambda _: Module(value))
    arguments = ["nothing", "--out", str(tmp_path), "--seed", "3"]
    if value >= 1:
        command_line.main("experiments", "experiment", ["nothing"], arguments)
    else:
        with pytest.raises(SystemExit, match="nothing: 1 of 1 claims do not hold"):
            command_line.main("experiments", "experiment", ["nothing"], arguments)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["command"] == "python -m experiments nothing --seed 3"
    assert metrics["options"]["seed"] == 3


def run_all(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> tuple[list[str], str]:
    """Run all of three experiments: which were started, and what the exit says."""
    values = {"good": 1.0, "claims_too_much": 0.5}
    started = []

    def run(command: list[str]) -> Any:
        """In place of a process: the experiment ``crashes`` leaves nothing behind."""
        *_, name, _, out = (x for x in command if x != "--quick")
        started.append(name)
        if name in values:
            config = Options(out=Path(out), quick="--quick" in command)
            report.perform(Module(values[name]).run, config)
        return subprocess.CompletedProcess(command, int(name != "good"))

    monkeypatch.setattr(everything, "EXPERIMENTS", ("claims_too_much", "crashes", "good"))
    monkeypatch.setattr(everything.importlib, "import_module", lambda _: Module(1.0))
    monkeypatch.setattr(everything.subprocess, "run", run)
    monkeypatch.setattr(report, "commit", lambda: "abc")  # no process
    with pytest.raises(SystemExit) as exit:
        everything.main(["--out", str(folder), *options])
    return started, str(exit.value)


def test_a_run_of_all_goes_past_failures_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, said = run_all(monkeypatch, tmp_path, "--quick")
    assert started == ["claims_too_much", "crashes", "good"]
    assert said.startswith("2 of 3 experiments failed:")
    assert "claims_too_much: claims that do not hold: value" in said
    assert "crashes: ended with exit status 1 before" in said
    assert json.loads((tmp_path / "good" / "metrics.json").read_text())["options"]["quick"]


def test_a_run_of_all_is_resumed_where_code_and_options_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(run_all(monkeypatch, tmp_path)[0]) == 3
    started, said = run_all(monkeypatch, tmp_path)
    assert started == ["crashes"]  # the others are there; what failed then is still said
    assert said.startswith("2 of 3 experiments failed:")
    assert len(run_all(monkeypatch, tmp_path, "--quick")[0]) == 3  # other options


def test_what_other_code_or_options_measured_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Options(out=tmp_path)
    assert report.measured(config) is None
    metrics = report.perform(Module(1.0).run, config)
    assert report.measured(config) == metrics
    assert report.measured(Options(out=tmp_path, seed=1)) is None
    assert "its options (seed) differ" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(kept, "code_of", lambda module: module)
        assert report.measured(config) is None
        assert "its code (beliefnav, beliefnav." in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(kept, "versions", lambda: {"python": "4.0"})
        assert report.measured(config) is None
        assert "its versions (python" in capsys.readouterr().out
    assert report.measured(config) == metrics
    report.perform(Module(1.0).run, Options(out=tmp_path, seed=1))  # in its place
    assert report.measured(config) is None


def test_a_run_of_all_into_a_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match=f"all: Cannot write to {file}"):
        everything.main(["--out", str(file)])


def says(*arguments: str, flags: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit status and what is said on standard error."""
    command = [sys.executable, *flags, "-m", "experiments", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "1"), "Cannot fit a model to 11 steps.*give more --epochs"),
        (("--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("--data", "digit"), "Unknown data set 'digit'; known are: digits"),
    ],
)
def test_what_cannot_be_run_is_said_without_a_traceback(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    status, error = says("classify", *options, "--out", str(tmp_path))
    assert status in (1, 2) and "Traceback" not in error
    assert re.search(message, " ".join(re.sub("[─-╿]", "", error).split())), (
        error
    )  # tyro draws a box


MODULES = [("experiments", name) for name in EXPERIMENTS]
MODULES += [("experiments.benchmarks", name) for name in BENCHMARKS]


def numbers(config: Any) -> dict[str, Any]:
    """Option -> its value, of those that are a number, or several."""
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    return {
        name: value
        for name, value in given.items()
        if name in config.LEAST
        or is_number(value)
        or (isinstance(value, tuple) and value and is_number(value[0]))
    }


def test_every_option_of_every_experiment_is_named_where_it_is_out_of_range() -> None:
    for package, name in MODULES:
        config = importlib.import_module(f"{package}.{name}").Config
        for option, value in numbers(config()).items():
            below = min(0, config.LEAST.get(option, 0)) - 1
            for wrong in (below, math.nan, math.inf, *([2**32] if option == "seed" else [])):
                many: Any = {tuple: lambda x: (x, x), dict: lambda x: {"adam": x}}
                given = many.get(type(value), lambda x: x)(wrong)
                for quick in (False, True):
                    with pytest.raises(OptionError) as error:
                        config(**{option: given}, quick=quick)
                    said = str(error.value)
                    assert option in said and "\n" not in said, (name, option, wrong)


def test_every_command_line_names_a_wrong_option_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is no number tyro refuses, in a box around the line."""
    for package, name in MODULES:
        config = importlib.import_module(f"{package}.{name}").Config
        option = next(iter(config.LEAST), "seed")
        dashed = f"--{option.replace('_', '-')}"
        below = str(int(min(0, config.LEAST.get(option, 0)) - 1))
        for given, status, message in (
            ([dashed, below], 1, f"{name}: {option} must be at least"),
            ([dashed, "many"], 2, dashed),
            (["--sed", "1"], 2, "--sed"),
            (["--quick", "--seed", "-1"], 1, f"{name}: seed must be at least 0, got -1."),
        ):
            with pytest.raises(SystemExit) as left:
                command_line.main(package, "experiment", [name], [name, *given])
            printed = capsys.readouterr().err
            if status == 1:  # Python prints it, and exits with 1
                assert str(left.value.code).startswith(message), (name, given)
                assert "\n" not in str(left.value.code)
            else:
                assert left.value.code == 2 and message in printed, (name, given)


def test_what_is_given_in_a_quick_run_wins_over_its_defaults() -> None:
    for package, name in MODULES:
        config = importlib.import_module(f"{package}.{name}").Config
        assert command_line.configure(package, name, ["--quick"]) == config(quick=True)
        for option in [key for key, value in config.QUICK.items() if isinstance(value, int)][:1]:
            default = str(getattr(config(), option))
            given = ["--quick", f"--{option.replace('_', '-')}", default]
            if isinstance(config.QUICK[option], bool):
                given = ["--quick", f"--{option}"]
            taken = command_line.configure(package, name, given)
            assert str(getattr(taken, option)) == default, (name, option)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    status, error = says("classify", "--out", str(file))
    assert status == 1 and error.startswith(f"classify: Cannot write to {file}.")
    assert len(error.splitlines()) == 1 and file.read_text() == "not a folder"


def test_the_list_needs_no_docstrings() -> None:
    assert says(flags=("-OO",)) == (0, "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As `head` does."""
    piped = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdout=piped, stderr=piped, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_an_interrupted_run_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Module(1.0)

    def run(config: Options) -> report.Report:
        (config.folder / "half.npz").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(command_line.importlib, "import_module", lambda _: module)
    arguments = ["nothing", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        command_line.main("experiments", "experiment", ["nothing"], arguments)
    assert left.value.code == 130
    assert capsys.readouterr().err == f"nothing: interrupted; {tmp_path} holds half.npz.\n"
