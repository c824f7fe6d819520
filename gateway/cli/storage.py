"""Where the gateway of a policy keeps things, for the commands that look there.

No more of the policy is read than that: finance needs none of the secrets that serving does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.document import Document
    from policies.problems import KeyPath


class Misused(Exception):
    """The command cannot be carried out as it was given."""


def ledger_url(policy: Path | None, ledger: str | None) -> str:
    """Return the ledger that a command was told of, by itself or by its policy.

    Raises Misused.
    """
    if policy is not None and ledger is not None:
        raise Misused("expected --policy or --ledger, found both; leave one out")
    if policy is None:
        return ledger or "sqlite:///frugal.db"
    return _ledger_and_spool(policy)[0]


def spool_url(policy: Path | None, ledger: str | None) -> str:
    """Return the SQLite ledger beside which a gateway keeps its files. Raises Misused."""
    if policy is not None and ledger is None:
        return _ledger_and_spool(policy)[1]
    return ledger_url(policy, ledger)


def shared_url(policy: Path | None, ledger: str | None, tell: Callable[[str], None]) -> str | None:
    """Return where machines share their keys, None where they share none.

    Where the policy names a place that cannot be told here, `tell` hears why. Raises Misused.
    """
    from gateway.access.key_exchange import shared_at

    url = ledger_url(policy, ledger)
    if policy is None:
        return shared_at(url, None, None)
    document = _document(policy)
    found: list[str | None] = []
    for name in ("redis", "limits"):
        try:
            found.append(_text(document, ("storage", name)))
        except Misused as exc:
            tell(f"keys are not shared: {exc}")
            found.append(None)
    return shared_at(url, *found)


def _ledger_and_spool(path: Path) -> tuple[str, str]:
    from gateway.money.location import spool_of
    from policies.schema import Spool, Storage

    document = _document(path)
    url = _text(document, ("storage", "ledger")) or Storage().ledger
    named = _text(document, ("storage", "spool", "file"))
    spool = path.parent / Path(named).expanduser() if named else Spool().file
    return url, spool_of(url, spool)


def _document(path: Path) -> Document:
    from policies.document import read_document
    from policies.loader import MAX_FILE, PolicyError

    try:
        with path.open(encoding="utf-8-sig") as file:
            return read_document(file.read(MAX_FILE), name=str(path), env=os.environ)
    except OSError as exc:
        raise Misused(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (PolicyError, UnicodeDecodeError) as exc:
        raise Misused(str(exc)) from exc


def _text(document: Document, where: KeyPath) -> str | None:
    from policies.loader import PolicyError

    name = ".".join(str(part) for part in where)
    if faults := [each for each in document.problems if each.path in ("", name)]:
        raise Misused(str(PolicyError(faults)))
    value = document.at(where)
    if value is not None and not isinstance(value, str):
        raise Misused(f"{document.name}: {name}: expected text, found {document.found(where)}")
    return value
