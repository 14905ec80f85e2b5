r"""Recordings: what an optimizer saw, did and believed on a few coordinates, opened in arviz.

`record` wraps any optax optimizer and keeps the last ``capacity`` steps of a few coordinates inside
its state: bounded memory, no callbacks, so that it works inside jit, scan and vmap. `to_dataset`
labels the recording, `to_arviz` opens it in arviz. `Recording` is a stream in memory, as
`beliefnav.filters` and `beliefnav.inference` take it.

A *stream file* is the NetCDF file of ``to_dataset(...)[["gradient", "displacement", "params"]]``:
variables of dimensions (step, param), with parameter names as labels. ``params[t]`` is $\theta_t$,
where ``gradient[t]`` was seen, and ``displacement[t]`` is $\theta_{t+1} - \theta_t$, the step taken
after it. A file may lack ``params`` and ``displacement``, as far as what reads it needs neither; it
may have ``gradient_norm``, of dimension (step).
"""

from beliefnav.recording.arviz import to_arviz, to_container, to_groups
from beliefnav.recording.dataset import from_arrays, read_stream, to_dataset
from beliefnav.recording.in_memory import Recording
from beliefnav.recording.recorder import record

__all__ = [
    "Recording",
    "from_arrays",
    "read_stream",
    "record",
    "to_arviz",
    "to_container",
    "to_dataset",
    "to_groups",
]
