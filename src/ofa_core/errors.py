"""The errors a user reads: one line that says what is wrong with which input, and what would be right."""

from __future__ import annotations


class OFAError(ValueError):
    """Base of every error this project raises about its input."""


class CheckpointError(OFAError):
    """A checkpoint file or a model directory that cannot be used."""


class UnsafePickleError(CheckpointError):
    """A pickle that asks for something outside the allow-list; nothing of it was executed."""
