"""``python -m seqmem.evaluate``, see :mod:`seqmem.cli.evaluate`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.evaluate import main

if __name__ == "__main__":
    main()
