"""Pictures to pixels and features."""
