"""Benchmarks on GuessWhat?!, InViG and RefCOCO: data, tasks, self-play, scores and reports."""
