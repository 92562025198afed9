"""The former name of ``python -m seqmem.boundaries``."""

import sys

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.boundaries import main

if __name__ == "__main__":
    print("boundaries.py has moved: python -m seqmem.boundaries", file=sys.stderr)
    main()
