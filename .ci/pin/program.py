"""What is pinned, of the library that is first on the path: writes every number into one file.

Run by the comparison in a process of its own: ``python program.py CHECKOUT FILE SECTION ...``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import on_beliefs
import on_recordings
import on_rules
import on_sampling
import on_texts
from recorder import Recorder


class Section(NamedTuple):
    """A part of the program.

    Attributes:
        run: writes its items into a recorder.
        eager: whether it runs operation by operation, where equal arithmetic gives equal bytes,
            however XLA would have fused it.
    """

    run: Callable[[Recorder], None]
    eager: bool


SECTIONS: dict[str, Section] = {
    "rules": Section(on_rules.eager, True),
    "beliefs": Section(on_beliefs.eager, True),
    "recordings": Section(on_recordings.eager, True),
    "programs": Section(on_recordings.programs, True),
    "files": Section(on_sampling.files, True),
    "datasets": Section(on_rules.datasets, True),
    "signatures": Section(on_texts.signatures, True),
    "assumptions": Section(on_texts.assumed, True),
    "atlas": Section(on_texts.measured, True),
    "sampling": Section(on_sampling.compiled, False),
    "jitted": Section(on_rules.jitted, False),
}


def main(checkout: Path, result: Path, sections: list[str]) -> None:
    """Run sections, by default all, on the library of a checkout.

    Raises:
        KeyError: there is no such section.
        RuntimeError: another library than that of the checkout was imported.
    """
    import beliefnav

    if not Path(str(beliefnav.__file__)).resolve().is_relative_to(checkout.resolve()):
        raise RuntimeError(f"Imported {beliefnav.__file__}, which is not in {checkout}.")
    jax.config.update("jax_enable_x64", True)
    recorder = Recorder()
    for name in sections or SECTIONS:
        with jax.disable_jit(SECTIONS[name].eager):
            SECTIONS[name].run(recorder)
        recorder.report(name)
    recorder.save(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
