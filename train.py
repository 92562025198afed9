"""Train a model on a data set over several seeded trials, and print one table: ``python train.py --help``.

``seqmem train`` of an installed package is the same.
"""

import sys
from importlib.util import find_spec

if find_spec("seqmem") is None:
    sys.exit("error: seqmem is not installed for this Python; run `make setup` and use .venv/bin/python")

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.train import main

if __name__ == "__main__":
    main()  # a function that is decorated with @hydra.main: Hydra's completion for bash searches this file for these words
