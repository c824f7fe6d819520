"""Checks of who may call, and of where the gateway listens."""

from __future__ import annotations

from policies.checks.outline import Outline
from policies.document import Document
from policies.explain import nearest
from policies.schema import Key

_SCOPES = ("admin", "read")


def check_access(outline: Outline, document: Document) -> None:
    """Report what is wrong with keys and ports."""
    names: set[str] = set()
    secrets: set[str] = set()
    for index, key in outline.keys.items():
        _check_key(index, key, names, secrets, document)
        _check_scopes(index, key, outline, document)
        names.add(key.name)
        secrets.add(key.key.get_secret_value())
    server = outline.server
    if server.port == server.admin_port != 0 and server.host == server.admin_host:
        path = ("server", "admin_port") if "admin_port" in server.model_fields_set else ("server",)
        document.report(path, f"the public port is {server.port}, too", "choose two ports")


def _check_key(
    index: int, key: Key, names: set[str], secrets: set[str], document: Document
) -> None:
    path, secret = ("access", "keys", index), key.key.get_secret_value()
    if key.name in names:
        found = document.found((*path, "name"))
        document.report((*path, "name"), f"another key is named {found} already")
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        message = "expected visible ASCII characters without spaces, since it travels in a header"
        document.report((*path, "key"), message)
    elif secret in secrets:
        message = "this key stands above already, so a caller could not be told from the other"
        document.report((*path, "key"), message)


def _check_scopes(index: int, key: Key, outline: Outline, document: Document) -> None:
    known = [*_SCOPES, *outline.route_names, *outline.model_names]
    for position, scope in enumerate(key.scopes):
        if scope not in known:
            path = ("access", "keys", index, "scopes", position)
            hint = nearest(scope, known) or "known: " + ", ".join(known)
            document.report(path, f"no route is named {document.found(path)}", hint)
