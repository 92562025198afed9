"""The pictures of ``docs/models``, computed by the models' own code: ``python -m benchmarks.pages --pictures``."""

from benchmarks.pages.pictures.drawing import draw, names

__all__ = ["draw", "names"]
