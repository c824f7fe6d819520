"""Where a ledger is kept: the URL under `storage.ledger`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.money.errors import LedgerRefused


@dataclass(frozen=True, slots=True)
class SqliteLocation:
    """A SQLite file, and whether a commit waits for the disk (`full`) or the kernel (`normal`)."""

    path: Path
    synchronous: Literal["normal", "full"] = "normal"


def locate(url: str) -> SqliteLocation:
    """Read `sqlite:///relative.db` or `sqlite:////absolute.db`, `?synchronous=full` optional.

    Raises LedgerRefused.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise LedgerRefused(
            f"expected a ledger such as sqlite:///frugal.db, found {_shown(url)}; "
            "no other database is supported yet"
        )
    if parts.netloc or len(parts.path) < 2:
        raise LedgerRefused(
            f"expected a file: sqlite:///relative.db or sqlite:////absolute.db, found {_shown(url)}"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal")
    if options or synchronous not in ("normal", "full"):
        raise LedgerRefused(
            f"expected no option but synchronous=normal or synchronous=full, found ?{parts.query}"
        )
    path = Path(unquote(parts.path[1:]))
    return SqliteLocation(path, cast(Literal["normal", "full"], synchronous))


def intents_beside(path: Path) -> Path:
    """Return the folder of what is about to be spent, beside the ledger's file."""
    return path.with_name(f"{path.name}-intents")


def _shown(url: str) -> str:
    """Return a URL without the password that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://…" if "@" in parts.netloc else repr(url)
