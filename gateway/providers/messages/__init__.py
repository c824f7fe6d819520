"""Anthropic's Messages API: requests into it, replies out of it."""
