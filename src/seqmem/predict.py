"""``python -m seqmem.predict``, see :mod:`seqmem.cli.predict`."""

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

from seqmem.cli.predict import main

if __name__ == "__main__":
    main()
