"""Answers that need not be bought twice."""

from __future__ import annotations

from cache.exact import ExactCache, ExactStats
from cache.fingerprint import fingerprint
from cache.freshness import Bounds, Freshness
from cache.scope import Scope, Tally
from cache.seat import Seat
from cache.types import CachedReply, CacheError, CacheStore, LeaderFailed, StoreFailed

__all__ = [
    "Bounds",
    "CacheError",
    "CacheStore",
    "CachedReply",
    "ExactCache",
    "ExactStats",
    "Freshness",
    "LeaderFailed",
    "Scope",
    "Seat",
    "StoreFailed",
    "Tally",
    "fingerprint",
]
