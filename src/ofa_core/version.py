"""The version, which the package's metadata are read from."""

__version__ = "0.1.0"
