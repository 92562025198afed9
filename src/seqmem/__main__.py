"""``python -m seqmem SUBCOMMAND``, see :mod:`seqmem.cli.command`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.command import main

if __name__ == "__main__":
    main()
