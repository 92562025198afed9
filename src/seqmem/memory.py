"""``python -m seqmem.memory``, see :mod:`seqmem.cli.memory`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.memory import main

if __name__ == "__main__":
    main()
