"""A small, bounded interpreter for pure functions: what a piece of Python would return."""
