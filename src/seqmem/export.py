"""``python -m seqmem.export``, see :mod:`seqmem.cli.export`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.export import main

if __name__ == "__main__":
    main()
