"""``python -m seqmem.compare``, see :mod:`seqmem.cli.compare`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.compare import main

if __name__ == "__main__":
    main()
