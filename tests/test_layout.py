"""The layout: which package may import which, what is public, and that old names are gone."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import beliefnav
from beliefnav.rules.catalogue import CATALOGUE

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "beliefnav"

# --- the graph of packages ----------------------------------------------------------------------

STANDS_ON: dict[str, set[str]] = {
    "_checks": set(),
    "_files": set(),
    "_trees": {"_checks"},
    "_format": {"_checks"},
    "_sharding": set(),
    "objective": {"_trees", "_format", "_sharding"},
    "beliefs": {"objective"},
    "control": {"beliefs"},
    "sensors": {"beliefs"},
    "_probe": {"control"},
    "drift": {"control"},
    "navigation": {"_probe", "drift"},
    "reading": {"navigation"},
    "recording": {"reading"},
    "filters": {"recording"},
    "inference": {"filters"},
    "wrappers": {"reading"},
    "rules": {"wrappers"},
    "atlas": {"inference", "rules", "sensors", "_files"},
    "beliefnav": {"atlas"},
}
"""What each part stands on: it may import that, and all that stands below it."""


def below(part: str) -> set[str]:
    """All that a part may import."""
    direct = STANDS_ON[part]
    return direct.union(*map(below, direct))


def part_of(module: str) -> str:
    """The part that a module of the library belongs to; the first name of any other."""
    first, *rest = module.split(".")
    return rest[0] if first == "beliefnav" and rest else first


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and part of every import, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, part_of(name.name)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            assert node.module
            for name in node.names:
                here = name.name in STANDS_ON and node.module == "beliefnav"
                yield node.lineno, name.name if here else part_of(node.module)


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def test_the_order_of_packages_has_no_cycle_and_is_complete():
    TopologicalSorter(STANDS_ON).prepare()  # raises CycleError
    parts = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__"} == set(STANDS_ON) - {"beliefnav"}


def test_nothing_imports_upwards():
    upwards = []
    for file in modules():
        dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        part = part_of(dotted.removesuffix(".__init__"))
        allowed = below(part) | {part}
        for line, other in imports(file):
            ours = other in STANDS_ON or other in ("models", "experiments", "tests")
            if ours and other not in allowed:
                upwards.append(f"{file.relative_to(ROOT)}:{line}: {part} imports {other}")
    assert not upwards


# --- what is public -----------------------------------------------------------------------------

UNUSED: dict[str, set[str]] = {}
"""Names that no README, experiment, model or Example uses so far."""


def packages() -> list[ModuleType]:
    found = pkgutil.walk_packages(beliefnav.__path__, "beliefnav.")
    return [beliefnav, *(importlib.import_module(m.name) for m in found if m.ispkg)]


def public(package: ModuleType) -> list[str]:
    """What can be imported from a package without an underscore, its modules left out."""
    names = getattr(package, "__all__", [])
    return [name for name in names if not isinstance(getattr(package, name), ModuleType)]


def test_public_names_are_few():
    """144 are allowed; 206 there were."""
    counts = {package.__name__: len(public(package)) for package in packages()}
    assert sum(counts.values()) <= 144, counts
    assert counts["beliefnav"] <= 14 and counts["beliefnav.control"] <= 29


def test_no_public_name_is_that_of_a_module_beside_it():
    """It would hide the module, or be hidden by it, depending on what is imported first."""
    twins = [
        f"{package.__name__}.{module.name}"
        for package in packages()
        for module in pkgutil.iter_modules(package.__path__)
        if module.name in public(package)
    ]
    assert not twins


def test_every_module_says_what_it_is_for():
    """In ``__all__``: names that it has, each once. A package of modules alone has none."""
    for file in modules():
        tree = ast.parse(file.read_text())
        dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if len(tree.body) <= 1 or file.stem == "__main__":
            continue
        module = importlib.import_module(dotted)
        names = getattr(module, "__all__", None)
        assert names is not None, f"{dotted} has no __all__"
        assert len(set(names)) == len(names), f"{dotted}: __all__ names one twice"
        assert all(hasattr(module, name) and not name.startswith("_") for name in names), dotted


def docstrings(folder: Path) -> Iterator[str]:
    """The docstrings of a folder's modules, classes and functions."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


@cache
def usage() -> str:
    """The code that people read: of the README, of Examples, of experiments and models."""
    readmes = [path.read_text() for path in (ROOT / "README.md", *ROOT.glob("experiments/**/*.md"))]
    blocks = [code for text in readmes for code in re.findall(r"```python\n(.*?)```", text, re.S)]
    documented = "\n".join((*docstrings(LIBRARY), *docstrings(ROOT / "models")))
    lines = re.findall(r"^ *(?:>>>|\.\.\.) (.*)", documented, re.M)
    programs = [
        ast.unparse(_without_docstrings(file.read_text()))
        for folder in ("experiments", "models")
        for file in (ROOT / folder).rglob("*.py")
    ]
    return "\n".join((*blocks, *lines, *programs))


def _without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return tree


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.__name__)
def test_every_public_name_is_used_where_people_read(package: ModuleType):
    unused = []
    for name in public(package):
        value = getattr(package, name)
        same = [p for p in packages() if name in public(p) and getattr(p, name) is value]
        shorts = "|".join(p.__name__.rpartition(".")[2] for p in same)
        use = rf"\b({shorts})\.{name}\b|from beliefnav[\w.]* import [^\n]*\b{name}\b"
        # The catalogue's rules are gone through whole by the atlas and by device_check.
        listed = name in CATALOGUE and package is beliefnav.rules
        unused += [] if listed or re.search(use, usage()) else [name]
    assert set(unused) == UNUSED.get(package.__name__, set())


# --- old names ----------------------------------------------------------------------------------

CHANGELOG = ROOT / ".github" / "CHANGELOG.md"


def old_names() -> list[str]:
    """The names in the first column of the changelog's table."""
    rows = re.findall(r"^\| (`[^|]*) \|", CHANGELOG.read_text(), re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def forms(name: str) -> set[str]:
    """How a dotted name is written: in full, from its package, as a file."""
    short = name.removeprefix("beliefnav.")
    if "/" in name or "(" in name:
        return {name}
    return {name, name.replace(".", "/"), *({short} if "." in short else ())}


def texts() -> Iterator[Path]:
    """What people read and run, without the changelog and this file."""
    folders = (".github", "beliefnav", "experiments", "models", "tests")
    run = ROOT / ".ci" / "run"  # the comparison of revisions beside it names what was
    files = (run, *(file for folder in folders for file in (ROOT / folder).rglob("*")))
    for file in sorted((*files, *ROOT.glob("*.md"), *ROOT.glob("*.toml"))):
        known = file.suffix in (".py", ".md", ".toml", ".yml", ".yaml") or file.name == "run"
        if known and file.is_file() and file not in (CHANGELOG, Path(__file__)):
            yield file


def test_old_names_are_gone():
    names = {form for name in old_names() for form in forms(name)}
    assert len(names) > 50
    pattern = re.compile(rf"(?<![\w./])({'|'.join(map(re.escape, sorted(names)))})(?!\w)")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[1]}"
        for file in texts()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert not found, "\n".join(found)
