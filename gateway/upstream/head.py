"""The head of a request, as bytes."""

from __future__ import annotations

from gateway.upstream.types import Headers

STANDARD_HEADERS = (
    ("accept", "*/*"),
    ("accept-encoding", "identity"),  # what is not decoded can pass through as it is
    ("content-type", "application/json"),
    ("user-agent", "frugal-gateway"),
)


class HeadWriter:
    """Writes requests to one origin; what they have in common is made once."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._openings: dict[str, str] = {}

    def write(self, path: str, headers: Headers, body: bytes) -> bytes:
        """Return a whole request. Raises ValueError for a header that would break out of its line.

        The message does not quote the header: its value may be a key.
        """
        opening = self._openings.get(path) or self._open(path)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("expected a header of one line, found a line break in it")
        return f"{opening}{lines}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body

    def _open(self, path: str) -> str:
        is_plain = path.isascii() and path.isprintable() and " " not in path
        if not path.startswith("/") or not is_plain:
            raise ValueError(f"expected a path such as /v1/chat/completions, found {path!r}")
        lines = (("host", self._authority), *STANDARD_HEADERS)
        opening = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines)
        self._openings[path] = opening
        return opening
