"""Where a ledger is kept: the URL under `storage.ledger`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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
            "expected a ledger such as sqlite:///frugal.db or postgresql://user@host/database, "
            f"found {shown_url(url)}"
        )
    if parts.netloc or len(parts.path) < 2:
        raise LedgerRefused(
            "expected a file: sqlite:///relative.db or sqlite:////absolute.db, "
            f"found {shown_url(url)}"
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


def replies_beside(path: Path) -> Path:
    """Return the file of answers that may be asked for again, beside the ledger's file."""
    return path.with_name(f"{path.name}-replies")


def refusals_beside(path: Path) -> Path:
    """Return the folder where workers tell each other what they have refused."""
    return path.with_name(f"{path.name}-refusals")


def figures_beside(path: Path) -> Path:
    """Return the folder where workers tell each other how they stand."""
    return path.with_name(f"{path.name}-figures")


def turns_beside(path: Path) -> Path:
    """Return the folder of locks on what is being answered, beside the ledger's file."""
    return path.with_name(f"{path.name}-turns")


def learned_beside(path: Path) -> Path:
    """Return the folder of bundles that routes have learnt by themselves, beside the ledger's."""
    return path.with_name(f"{path.name}-learned")


def is_postgres(url: str) -> bool:
    """Return whether a ledger is in PostgreSQL."""
    return urlsplit(url).scheme in ("postgresql", "postgres")


def spool_of(ledger_url: str, file: Path) -> str:
    """Return the SQLite ledger that a process writes: the ledger itself, or PostgreSQL's spool."""
    return f"sqlite:///{quote(str(file))}" if is_postgres(ledger_url) else ledger_url


def shown_url(url: str) -> str:
    """Return a URL without the password that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://…" if "@" in parts.netloc else repr(url)
