"""``python -m seqmem.export``, see :mod:`seqmem.cli.export`."""

from seqmem.cli.export import main

if __name__ == "__main__":
    main()
