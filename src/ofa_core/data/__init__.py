"""What dataset files hold, for benchmarks and training alike."""
