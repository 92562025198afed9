"""Reports of tables alone, for tests that look at no picture."""

import pytest

from seqmem.cli import report


@pytest.fixture
def tables_alone(monkeypatch):
    """Reports draw no learning curves and no bars, which takes three quarters of their time."""
    for name in ("plot_learning_curves", "plot_bars"):
        monkeypatch.setattr(report, name, lambda *given: None)
