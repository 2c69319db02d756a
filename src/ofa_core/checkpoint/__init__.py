"""Model directories: reading, writing and describing them."""
