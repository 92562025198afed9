"""``python -m seqmem.decode``, see :mod:`seqmem.cli.decode`."""

from seqmem.cli.decode import main

if __name__ == "__main__":
    main()
