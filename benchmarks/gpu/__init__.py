"""Tests, timings and trainings on the GPU of this machine: ``python -m benchmarks.gpu`` or ``make gpu``."""
