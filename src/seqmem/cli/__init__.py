"""From a command line to a checked config, sweeps of them, and the commands of ``python -m seqmem.NAME``."""
