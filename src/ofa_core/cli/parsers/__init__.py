"""Parsers of the commands, one file a group: what ``--help`` and wrong usage take, which is no model and no torch."""
