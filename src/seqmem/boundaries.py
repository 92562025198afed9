"""``python -m seqmem.boundaries``, see :mod:`seqmem.cli.boundaries`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.boundaries import main

if __name__ == "__main__":
    main()
