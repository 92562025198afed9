"""``python -m seqmem.publish``, see :mod:`seqmem.cli.publish`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.publish import main

if __name__ == "__main__":
    main()
