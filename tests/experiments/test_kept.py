"""Results in files: the key that they are kept under, and what becomes of what cannot be used."""

import doctest
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import models  # noqa: F401 - its code, and that of rules, is part of the key
from beliefnav import rules  # noqa: F401
from beliefnav._files import written_beside
from experiments import kept
from experiments.kept import Kept, digest

RESULT = {"curve": jnp.arange(3.0), "count": np.int64(3), "said": ["a", None], "nested": {"b": 1.5}}


def count(store: Kept, seed: int) -> int:
    found = store.get("one", {"seed": seed})
    assert found is not None
    return found["count"]


def never() -> Any:
    raise AssertionError("measured again")


def test_the_example_is_right() -> None:
    assert doctest.testmod(kept, optionflags=doctest.NORMALIZE_WHITESPACE) == (0, 5)


def test_what_is_read_is_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, options = Kept(tmp_path / "new"), {"seed": 0, "sizes": (1, 2)}
    first = store.measure("tasks/one", options, lambda: RESULT)
    assert not store.read and capsys.readouterr().out == ""
    again = store.measure("tasks/one", options, never)
    assert store.read == ["tasks/one"]
    assert capsys.readouterr().out == "Read from a file: tasks/one.\n"
    for found in (first, again):
        assert set(found) == set(RESULT)
        np.testing.assert_array_equal(found["curve"], [0, 1, 2])
        assert found["count"] == 3 and found["said"] == ["a", None] and found["nested"]["b"] == 1.5
    assert Kept(tmp_path / "new").get("tasks/on", options) is None


def test_a_result_of_another_key_is_named_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, path = Kept(tmp_path), Kept(tmp_path).put("one", {"seed": 0}, RESULT)
    assert store.get("one", {"seed": 1}) is None
    said = f"Not used: {path}. This is because its options (seed) differ; it stays there.\n"
    assert capsys.readouterr().out == said and path.is_file()
    other = store.put("one", {"seed": 1}, {"count": 4})
    assert count(store, 0) == 3 and store.get("one", {"seed": 1}) is not None
    assert path != other
    # The code of a module of the rules, and a module that is no longer there.
    changed = {"beliefnav.rules.adaptive": "changed", "beliefnav.rules.geometry": None}
    now = kept.code_of
    monkeypatch.setattr(kept, "code_of", lambda name: changed.get(name, now(name)))
    capsys.readouterr()
    assert store.get("one", {"seed": 0}) is None
    said = "its code (beliefnav.rules.adaptive, beliefnav.rules.geometry) differ"
    assert said in capsys.readouterr().out
    assert store.measure("one", {"seed": 0}, lambda: {"count": 5})["count"] == 5
    assert count(store, 0) == 5
    monkeypatch.setattr(kept, "code_of", now)
    assert count(store, 0) == 3  # the code is as it was


@pytest.mark.parametrize("damage", ["cut", "emptied", "text", "other array", "no key"])
def test_a_damaged_file_is_named_and_made_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Kept(tmp_path)
    path = store.put("one", {}, RESULT)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "emptied":
            path.write_bytes(b"")
        case "text":
            path.write_text("no archive")
        case "other array":
            np.savez(path, other=np.zeros(2))
        case _:
            np.savez(path, said=np.array(json.dumps([{"options": {}}, {}])))
    found = store.measure("one", {}, lambda: {"count": 4})
    assert found["count"] == 4 and not store.read
    assert capsys.readouterr().out.startswith(f"Cannot read {path}. This is because it is damaged")
    assert store.measure("one", {}, never)["count"] == 4


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    for wrong in ({"a": np.array([object()])}, {"a": {"b": np.zeros(2)}}, {"a": object()}):
        with pytest.raises(TypeError):
            Kept(tmp_path).put("one", {}, wrong)
    assert not list(tmp_path.iterdir())


def test_the_digest_of_code_is_that_of_what_runs() -> None:
    code = "def f(x):\n    return x + 1\n\n\nclass A:\n    y: int = 2\n"
    said = (
        '"""Module."""\n# A comment.\ndef f(x):\n    """Say."""\n    return (x +\n        1)\n'
        'class A:\n    """Class."""\n    y: int = 2\n    """A field."""\n'
    )
    assert digest(code) == digest(said)
    for other in (code.replace("1", "2"), code.replace("y", "z"), code + "print('hello')\n"):
        assert digest(other) != digest(code)


def test_the_code_is_that_of_all_loaded_modules_as_they_were_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = kept.loaded_code()
    assert {"beliefnav", "beliefnav.rules.adaptive", "models", "experiments.kept"} <= set(code)
    assert not any(name.startswith(("jax", "tests")) for name in code)
    assert all(kept.code_of(name) == value for name, value in code.items())
    monkeypatch.setattr(Path, "read_text", lambda _: "changed = True")  # while the program runs
    assert kept.loaded_code() == code
    assert kept.code_of("experiments.nothing") is None


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with written_beside(path) as unfinished:
        unfinished.write_text("old")
    with path.open() as held:  # as a notebook holds it
        with pytest.raises(KeyboardInterrupt), written_beside(path) as unfinished:
            unfinished.write_text("ha")
            raise KeyboardInterrupt
        assert path.read_text() == "old"
        with written_beside(path) as unfinished:
            unfinished.write_text("new")
        assert (held.read(), path.read_text()) == ("old", "new")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_posterior_that_a_notebook_holds_is_written_anew(tmp_path: Path) -> None:
    import xarray as xr

    path = tmp_path / "posterior.nc"
    for value in (1.0, 2.0):
        with written_beside(path) as unfinished:
            xr.Dataset({"x": value}).to_netcdf(unfinished, engine="h5netcdf")
        held = xr.open_dataset(path, engine="h5netcdf")
        assert held["x"] == value
        if value == 2.0:
            held.close()
