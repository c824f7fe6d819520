"""Blot credentials out of a text before it is written down anywhere."""

from __future__ import annotations

import re

BLOT = "[secret]"
# What providers' keys look like, whatever a policy knows of them.
_KEYS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{12,}"  # OpenAI, Anthropic, our own
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"  # GitHub
    r"|\bAKIA[A-Z0-9]{16}\b"  # AWS
    r"|\bAIza[A-Za-z0-9_-]{30,}"  # Google
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\bey[A-Za-z0-9_-]{10,}\.ey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"  # JSON web tokens
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_LOGIN = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")


def blotted(text: str) -> str:
    """Return a text without what looks like a key, a token or a URL's password."""
    text = _KEYS.sub(BLOT, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {BLOT}", text)
    return _LOGIN.sub(BLOT, text)
