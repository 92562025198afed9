"""``python -m seqmem.encode``, see :mod:`seqmem.cli.encode`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.encode import main

if __name__ == "__main__":
    main()
