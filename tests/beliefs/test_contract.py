"""What may be asked of a belief stands in one file, and nothing finds it out in another way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import beliefnav
from beliefnav import beliefs
from beliefnav.beliefs import contract

LIBRARY = Path(beliefnav.__file__).parent
FILES = sorted(LIBRARY.rglob("*.py"))
CONTRACT = Path(contract.__file__)


def subclasses(cls: type) -> Iterator[str]:
    for sub in cls.__subclasses__():
        yield sub.__name__
        yield from subclasses(sub)


CONCRETE = {
    name
    for name in subclasses(beliefs.Belief)
    if any(f"class {name}(" in p.read_text() for p in FILES)
} - {"AsGiven"}


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def inspections(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a program finds out by itself what an object can do or is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in ("hasattr", "getattr"):
            yield node.lineno, name_of(node.func)
        if isinstance(node, ast.Call) and name_of(node.func) in ("isinstance", "issubclass"):
            asked = {name_of(n) for n in ast.walk(node.args[1])} & CONCRETE
            yield from ((node.lineno, f"isinstance {name}") for name in asked)
        if isinstance(node, ast.MatchClass) and name_of(node.cls) in CONCRETE:
            yield node.lineno, f"match {name_of(node.cls)}"
        if isinstance(node, ast.Attribute) and node.attr.startswith("singledispatch"):
            yield node.lineno, "singledispatch"
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            if "AttributeError" in {name_of(n) for n in ast.walk(node.type)}:
                yield node.lineno, "except AttributeError"
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(isinstance(s, ast.Attribute) and s.attr == "__name__" for s in sides):
                yield node.lineno, "comparison of names"


def test_concrete_beliefs_are_known():
    assert {"LocalLevel", "Secant", "UnknownNoise", "RunLengths", "Sensed"} <= CONCRETE


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_capabilities_are_declared_and_not_found_out(path: Path):
    # Fields of a record by the names of their ranges; an error that jax does not export.
    allowed = {"_checks.py": {"getattr"}, "navigation.py": {"comparison of names"}}
    found = [
        f
        for f in inspections(ast.parse(path.read_text()))
        if f[1] not in allowed.get(path.name, ())
    ]
    assert path == CONTRACT or not found


def test_the_contract_names_and_imports_no_concrete_belief():
    tree = ast.parse(CONTRACT.read_text())
    assert not {name_of(node) for node in ast.walk(tree)} & CONCRETE
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {n.module for n in imports if isinstance(n, ast.ImportFrom) and n.module}
    folders = ("gradient", "second_moment", "landscape", "tasks", "composed")
    assert not [
        m for m in modules if m.startswith(tuple(f"beliefnav.beliefs.{f}" for f in folders))
    ]


@pytest.mark.parametrize(
    "source",
    [
        "hasattr(belief, 'scaled')",
        "getattr(belief, 'model', belief)",
        "isinstance(belief, (beliefs.Secant, int))",
        "match belief:\n    case Secant(): pass",
        "@functools.singledispatch\ndef f(x): pass",
        "try: pass\nexcept (KeyError, AttributeError): pass",
        "type(belief).__name__ == 'Secant'",
    ],
)
def test_what_is_looked_for_is_found(source: str):
    assert list(inspections(ast.parse(source)))
