"""``python -m seqmem.encode``, see :mod:`seqmem.cli.encode`."""

from seqmem.cli.encode import main

if __name__ == "__main__":
    main()
