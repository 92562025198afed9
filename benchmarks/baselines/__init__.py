"""Baselines of the benchmarks, written from the papers; one file per baseline."""
