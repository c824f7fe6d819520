"""One name for all requests that may share an answer."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b, sha256

import msgspec

IGNORED = frozenset(("stream", "stream_options", "user", "metadata", "frugal"))
"""The members of a request that do not change its answer."""

PARTITION_BYTES = 8
CORPUS_MARK = b"\xff"
"""What the partition of every corpus begins with, so that a search need not read all others."""

_DIGEST_BYTES = 24
_LAYOUT = 1  # raised when what goes into the digest changes, so that old entries are never met
_encode = msgspec.json.Encoder(order="sorted").encode


def fingerprint(
    tenant: str,
    route: str,
    revision: str,
    body: Mapping[str, object],
    *,
    corpus: str | None = None,
) -> bytes:
    """Return 32 bytes that differ wherever tenant, route, revision or an answer may differ.

    The first 8 are the tenant's partition, the other 24 a digest over the canonical
    JSON of everything, tenant included: one array, so no two parts can run into
    each other. `body` must have come from JSON (finite numbers, no lone surrogates).
    Where a `corpus` is shared, it stands for all tenants; as an array, which no
    tenant's name is.
    """
    asked = {name: value for name, value in body.items() if name not in IGNORED}
    owner = tenant if corpus is None else (corpus,)
    canonical = _encode((_LAYOUT, owner, route, revision, asked))
    first = partition(tenant) if corpus is None else corpus_partition(corpus)
    return first + sha256(canonical).digest()[:_DIGEST_BYTES]


def partition(tenant: str) -> bytes:
    """Return the 8 bytes that begin every fingerprint of a tenant."""
    return blake2b(tenant.encode(), digest_size=PARTITION_BYTES).digest()


def corpus_partition(corpus: str) -> bytes:
    """Return the 8 bytes that begin every fingerprint of a corpus, whatever tenants are called."""
    size = PARTITION_BYTES - len(CORPUS_MARK)
    return CORPUS_MARK + blake2b(corpus.encode(), digest_size=size, person=b"corpus").digest()


def writer_mark(tenant: str) -> str:
    """Return the tag by which an answer in a corpus is known as paid for by a tenant."""
    return f"\x1e{partition(tenant).hex()}"
