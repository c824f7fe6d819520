"""What can be wrong with a call to learn."""

from __future__ import annotations


class LearningError(Exception):
    """Learning cannot be done as it was asked; says what to change."""
