"""What is taken out of a text before anybody is shown it: keys, addresses, numbers of cards.

A net with holes, not a proof: texts are stored only where the policy says so, and this
keeps what is plainly a secret from being read over a shoulder.
"""

from __future__ import annotations

import re
from typing import Any

_SECRETS = re.compile(
    r"""
    (?P<key>\b(?:sk|pk|rk|fg|ghp|gho|ghs|github_pat|xox[abprs]|glpat|hf|AKIA|ASIA|AIza)
        [-_]?[A-Za-z0-9_\-]{12,})
    | (?P<token>\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,})
    | (?P<bearer>(?i:\bbearer\s+)[A-Za-z0-9._\-+/=]{12,})
    | (?P<pem>-----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*-----|\Z))
    | (?P<password>(?i:\b(?:password|passwd|secret|api[_-]?key|token)\s*[:=]\s*)[^\s"',;]{4,})
    | (?P<email>\b[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,4}\b)
    | (?P<number>(?<![\w.])\+?\d(?:[ \-]?\d){11,18}(?![\w.]))
    """,
    re.VERBOSE | re.DOTALL,
)


def redacted(text: str) -> str:
    """Return a text with what looks like a secret, or like a person's number, taken out."""
    return _SECRETS.sub(lambda found: f"[{found.lastgroup} taken out]", text)


def redacted_all(value: Any) -> Any:
    """Return JSON values with every text in them redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [redacted_all(each) for each in value]
    if isinstance(value, dict):
        return {name: redacted_all(each) for name, each in value.items()}
    return value
