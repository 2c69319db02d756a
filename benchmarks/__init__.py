"""Timings and memory, not part of the tests: run each module with ``python -m benchmarks.NAME``."""
