"""``python -m seqmem.decode``, see :mod:`seqmem.cli.decode`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.decode import main

if __name__ == "__main__":
    main()
