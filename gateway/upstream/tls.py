"""How an upstream's certificate is checked."""

from __future__ import annotations

import ssl
from pathlib import Path


def context_for(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the system's authorities, or only those in `ca_file`.

    Raises ValueError for a file that holds none.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError is one too
        raise ValueError(f"tls.ca_file: expected certificates in PEM, found {ca_file}") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context
