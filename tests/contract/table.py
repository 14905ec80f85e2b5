"""The table of cells in `table.md`, belief by law, and what its words mean."""

import re
from pathlib import Path
from typing import NamedTuple

TEXT = (Path(__file__).parent / "table.md").read_text()


class Cell(NamedTuple):
    """What is claimed of a law of a belief.

    Attributes:
        kind: ``exact``, ``limit``, ``refuses``, ``otherwise`` or ``elsewhere``.
        text: the limit, the pattern of the message, the reason, or the test that holds the law.
    """

    kind: str
    text: str = ""


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, its first row too."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    return [cells[0], *cells[2:]]


NOTES = {
    key: Cell(kind, text)
    for key, kind, text in re.findall(r"^- \*\*(.+?)\*\*: (\w+): `?(.+?)`?$", TEXT, re.MULTILINE)
}
NOTES["exact"] = Cell("exact")

_LAWS, *_ROWS = rows("Laws")
CELLS = {
    (name, law): NOTES[key]
    for name, *keys in _ROWS
    for law, key in zip(_LAWS[1:], keys, strict=True)
}

RANGES = {(owner, field): interval for owner, field, interval in rows("Ranges")[1:]}
"""(class, field) -> an interval as it is written: square where its end belongs to it."""

REFUSED = {
    f"{wrapper}({name})": NOTES[key]
    for wrapper, key, names in rows("Wrappers")[1:]
    for name in names.split(", ")
}
"""What a wrapper does not take, and the message that says so."""
