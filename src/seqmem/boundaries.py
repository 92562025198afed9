"""``python -m seqmem.boundaries``, see :mod:`seqmem.cli.boundaries`."""

from seqmem.cli.boundaries import main

if __name__ == "__main__":
    main()
