"""Heads: from tokens to answers, one file a task."""
