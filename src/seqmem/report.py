"""``python -m seqmem.report``, see :mod:`seqmem.cli.report`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.report import main

if __name__ == "__main__":
    main()
