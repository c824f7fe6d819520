"""The HTTP surface off the hot path."""
