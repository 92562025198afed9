"""The command line: checked configs and sweeps of ``train.py``, and the commands ``python -m seqmem.NAME``."""
