"""Wrappers around any optax optimizer.

**Tasks that switch: what to use.** `two_hypothesis` resets all layers, or those of a mask;
`beliefnav.wrappers.partial_switches.layer_hypotheses` finds out which; `beliefnav.rules` has
`beliefnav.rules.hazard_filter`, which expects switches at all times and needs gradients of
examples. The table has the online accuracy, the fraction correct on a batch before it is learned,
over 12 tasks of 800 steps (two numbers: two seeds). Data are the 1,437 training images of digits
that come with scikit-learn, 320 of them for random labels; the network has 64-64-64-10 units with
ReLU; batches have 16 examples; the optimizer is Adam at 3e-3, inside of the wrappers as alone.
Hazards are 1e-3 a step; 6e-4 for the filter, whose prior has 4 times the initial variance. One
setting serves all streams; the length of trials was chosen on these.

| stream: what is new in a task | Adam | `two_hypothesis` | `layer_hypotheses` | `hazard_filter` |
|---|---|---|---|---|
| two classes swap names | .988, .988 | .953, .950 | .991, .992 | .990, .990 |
| names of all classes | .946, .945 | .951, .949 | .988, .987 | .978, .977 |
| order of pixels | .954, .958 | .951, .950 | .974, .973 | .966, .965 |
| random labels | .360, .497 | .641, .631 | .640, .628 | .654, .690 |
| nothing | .996, .996 | .996, .996 | .996, .996 | .993, .993 |

- Where tasks may share something, and that is not known, use `layer_hypotheses`. Of the four it is
  the best on all streams but that of random labels, where the filter is better by .014 and .062. It
  costs 18 trees of the parameters' size where Adam has 2 (see there), and passes in a trial only.
- Where tasks share nothing, use `two_hypothesis`: 3 trees, and one forward pass a step. On random
  labels its accuracy in the last 20 steps of a task is .99 and .98, that of `layer_hypotheses` .98
  and .98, and that of the filter, which is pulled at all times, .94 and .96. Where it is known
  which layers are new, give it a ``mask``: with that of the head it has .990, .990 on the swap, and
  .991, .991 with ``keep_state=True``.
- Where memory is for 4 trees and gradients of examples are at hand, the filter has no learning rate
  to choose.
- Where it is known when tasks begin, say ``task_begins=True`` to any of them. It changes little,
  because switches are found at the first or second batch: `two_hypothesis` that is told has .950,
  .951 on the swap and .641, .629 on random labels; `layer_hypotheses`, whose layers are still
  found, differs by less than .001 on the four streams that switch.

**What is left to choose.** A hazard is one in how many *steps* a switch is expected. The wrappers
weigh it against the evidence of a batch, and a wrong hazard costs them little. From 1e-9 to 1e-2
the accuracy of `two_hypothesis` is .954 to .962 on the swap, .950 or .951 on pixels, .637 to .644
on random labels and .995 where nothing is new; from 1e-6 to 0.1 that of `layer_hypotheses` is .990,
.972 and .639 to .643 (10 tasks, one seed). A larger hazard makes for more trials that find nothing,
in 8,000 steps 1 at 1e-6, 22 at 1e-2 and 54 at 0.1 on the swap: 1e-3 or less will do.

`layer_hypotheses` with ``hazard=None`` learns how often each set of layers starts anew, so that
nobody has to choose. On the ten streams of the experiment ``plasticity`` (the method
``layer_hypotheses_learned``, Adam at 3e-3, ten seeds) its mean accuracy differs from that with a
hazard of 1e-2 by -.0001 to +.001 on eight streams, and by +.025 (95 % interval: +.003 to +.046) on
that of a convolutional network; the tenth, a regression, has no switch to find, and the same error.
Hazards of 3e-4 to 0.1 were tried on three of the streams: the best of these is .0001 ahead at most.

The filter is pulled by its hazard at every step, and is sensitive: see
`beliefnav.rules.hazard_filter`. Trials of 20 steps are for batches of 16; the number of
``examples`` must be that of independent ones.
"""

from beliefnav.wrappers import combining, uncontrolled
from beliefnav.wrappers.averaging import iterate_averaging
from beliefnav.wrappers.task_switches import two_hypothesis

__all__ = ["combining", "iterate_averaging", "two_hypothesis", "uncontrolled"]
