"""Hydra's configuration tree, and beside it how a command line becomes a checked config or a sweep of them."""

import sys
from importlib.util import find_spec

if find_spec("seqmem") is None:
    sys.exit("error: seqmem is not installed for this Python; run `make setup` and use .venv/bin/python")
