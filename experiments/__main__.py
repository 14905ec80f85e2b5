"""``python -m experiments`` lists the experiments, ``python -m experiments NAME`` runs one.

``all`` in place of a name runs every experiment that has not been run yet; ``NAME --publish``
brings the figures and numbers of a finished run into the experiment's folder and its README.
"""

import sys

from experiments import EXPERIMENTS, command_line, everything

if __name__ == "__main__":
    with command_line.piped():
        match sys.argv[1:]:
            case ["all", *options]:
                everything.main(options)
            case arguments:
                command_line.main("experiments", "experiment", EXPERIMENTS, arguments)
