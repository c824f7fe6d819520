"""Answers that need not be bought twice."""

from __future__ import annotations

from cache.exact import ExactCache, ExactStats, Seat
from cache.fingerprint import fingerprint
from cache.types import CachedReply, CacheError, CacheStore, LeaderFailed, StoreFailed

__all__ = [
    "CacheError",
    "CacheStore",
    "CachedReply",
    "ExactCache",
    "ExactStats",
    "LeaderFailed",
    "Seat",
    "StoreFailed",
    "fingerprint",
]
