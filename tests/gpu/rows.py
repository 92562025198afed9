"""The implementations for a GPU on CPU tensors, where they can run."""

import pytest

from seqmem.ops import implementations


def use_rows_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the table of implementations choose on any device as it does on a GPU."""
    for operator, rows in implementations.TABLE.items():
        others = tuple(row._replace(device="") for row in rows if row.device in ("", "cuda"))
        monkeypatch.setitem(implementations.TABLE, operator, others)
