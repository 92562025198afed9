"""Evaluate a finished trial again, on its own data or on other data: ``python evaluate.py --help``."""

import sys
from importlib.util import find_spec

if find_spec("seqmem") is None:
    sys.exit("error: seqmem is not installed for this Python; run `make setup` and use .venv/bin/python")

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.evaluate import main

if __name__ == "__main__":
    main()
