"""Dataset files and their pictures, for benchmarks and training alike."""
