"""Names for what a page holds: a chain of hashes over all tokens up to its end."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Sequence


class PrefixHash:
    """Hash full pages of tokens, each with all that came before it.

    The hash is keyed with a secret of this process, so that nobody can construct two
    prompts of one name, and 128 bits leave no chance of finding them. The chain starts
    with whose prompt it is and the adapter it runs under: another tenant's prefix is
    never found, and so its presence cannot be timed.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._secret = secrets.token_bytes(32)

    def start(self, tenant: str, adapter: str) -> bytes:
        """Return the name of the empty prefix."""
        return self._digest(f"{len(tenant)}:{tenant}{adapter}".encode())

    def extend(self, chain: list[bytes], tokens: Sequence[int]) -> None:
        """Add to a chain, which begins with the start, the names of all full pages of tokens."""
        size = self._page_size
        for index in range(len(chain) - 1, len(tokens) // size):
            page = array("I", tokens[index * size : (index + 1) * size])
            chain.append(self._digest(chain[-1] + page.tobytes()))

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=16, key=self._secret).digest()
