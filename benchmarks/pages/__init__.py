"""The generated parts of the pages in ``docs/models`` and ``docs/results``: ``python -m benchmarks.pages``."""
