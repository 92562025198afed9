"""``python -m seqmem.report``, see :mod:`seqmem.cli.report`."""

from seqmem.cli.report import main

if __name__ == "__main__":
    main()
