"""From raw bytes to a `ChatRequest`: parsed once, checked, our own controls taken out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from cache.freshness import ANY_AGE, Bounds, read_bounds
from gateway.access.keys import Caller
from gateway.errors import InvalidRequest
from gateway.money.estimate import most_prompt_tokens
from policies.rules import RequestFacts

MAX_DEPTH = 200
MAX_REPEAT_KEY = 255
CacheMode = Literal["use", "exact", "refresh", "no-store", "off"]

# What would choose an upstream or a credential: never taken from a request.
_FORBIDDEN = frozenset(
    ("api_base", "base_url", "api_key", "proxy", "custom_llm_provider", "extra_headers",
     "organization")
)  # fmt: skip
_LATER_HEADERS = (b"x-frugal-deadline",)
_MAX_USD = "x-frugal-max-usd"
_NANO = 10**9
_NO_TAGS: frozenset[str] = frozenset()

_OWN_HEADERS = frozenset(
    (b"cache-control", b"idempotency-key", b"x-frugal-cache", _MAX_USD.encode(), *_LATER_HEADERS)
)

RawHeaders = Mapping[bytes, bytes]
"""Headers by lower-case name, as ASGI hands them over; the last of a name wins."""


class _Message(msgspec.Struct):
    role: Annotated[str, msgspec.Meta(min_length=1)]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_cost: bool | None = None


class _Controls(msgspec.Struct, forbid_unknown_fields=True):
    cache: Literal["exact", "off"] | None = None
    cache_ttl: Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)] | None = None
    tags: Annotated[list[str], msgspec.Meta(max_length=32)] = []
    max_usd: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None


_Positive = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]


class _ChatFields(msgspec.Struct):
    """The members that the gateway reads; everything else passes through."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    frugal: _Controls | None = None


class _Text(Mapping[str, str]):
    """Raw headers read as text, each only when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Asked(msgspec.Struct, frozen=True, dict=True):
    """A body that was read and checked.

    `body` is the client's JSON object without our own members; `fields` are the
    typed ones among them; `size` is the length of the raw body in bytes.
    `fingerprints` are those it had before, by tenant and revision of its route.
    """

    body: dict[str, Any]
    fields: _ChatFields
    controls: _Controls | None
    size: int
    fingerprints: dict[tuple[str, str], bytes]

    @cached_property
    def most_tokens(self) -> int:
        """Return the most tokens that any model may count the prompt as."""
        return most_prompt_tokens(self.body)

    @cached_property
    def is_rich(self) -> bool:
        """Return whether a message may be more than text: images, sounds, files."""
        return any(isinstance(message.content, list) for message in self.fields.messages)


class ChatRequest(msgspec.Struct, frozen=True):
    """One chat completion as the client asked for it.

    `body`, `fields` and `size` are those of `asked`;
    `repeat_key` is the `idempotency-key` of a request that may be sent again;
    `max_nano_usd` the most that it may come to cost.
    """

    id: str
    body: dict[str, Any]
    fields: _ChatFields
    stream: bool
    include_usage: bool
    include_cost: bool
    cache: CacheMode
    tags: frozenset[str]
    headers: RawHeaders
    size: int
    asked: Asked
    bounds: Bounds = ANY_AGE
    repeat_key: str | None = None
    max_nano_usd: int | None = None

    @property
    def model(self) -> str:
        """Return the route or model that the client named."""
        return self.fields.model

    @property
    def max_tokens(self) -> int | None:
        """Return the bound of the answer's length, in tokens."""
        return self.fields.max_completion_tokens or self.fields.max_tokens

    @property
    def is_rich(self) -> bool:
        """Return whether a message may be more than text: images, sounds, files."""
        return self.asked.is_rich

    @property
    def asks_service(self) -> bool:
        """Return whether a service tier is asked for, which may have a price of its own."""
        return "service_tier" in self.body or "speed" in self.body

    def facts(self, caller: Caller) -> RequestFacts:
        """Return what routing may know. Tokens are estimated as a quarter of the bytes."""
        kind = (self.fields.response_format or {}).get("type")
        return RequestFacts(
            tenant=caller.tenant,
            key=caller.key,
            model=self.fields.model,
            stream=self.stream,
            input_tokens=self.size // 4,
            max_tokens=self.max_tokens,
            tags=caller.tags | self.tags,
            has_tools=bool(self.fields.tools),
            has_images=_has_images(self.fields.messages),
            json_schema=kind == "json_schema",
            logprobs=bool(self.fields.logprobs),
            headers=_Text(self.headers),
        )


def parse_chat(raw: bytes, headers: RawHeaders, request_id: str) -> ChatRequest:
    """Check a chat completion request.

    Raises InvalidRequest, saying what was
    expected and where.
    """
    return request_of(read_body(raw), headers, request_id)


def read_body(raw: bytes) -> Asked:
    """Read and check a body. Raises InvalidRequest."""
    body = _decode(raw)
    fields = _typed(body)
    controls = body.pop("frugal", None) and fields.frugal
    options = fields.stream_options
    if options is not None and options.include_cost is not None:
        body["stream_options"] = {
            k: v for k, v in body["stream_options"].items() if k != "include_cost"
        }
    return Asked(body, fields, controls or None, len(raw), {})


def request_of(asked: Asked, headers: RawHeaders, request_id: str) -> ChatRequest:
    """Return the request that a body and its headers make. Raises InvalidRequest."""
    fields, controls = asked.fields, asked.controls
    options = fields.stream_options
    plain = ChatRequest(
        id=request_id,
        body=asked.body,
        fields=fields,
        stream=bool(fields.stream),
        include_usage=bool(options and options.include_usage),
        include_cost=bool(options and options.include_cost),
        cache="use",
        tags=_NO_TAGS,
        headers=headers,
        size=asked.size,
        asked=asked,
    )
    if controls is None and _OWN_HEADERS.isdisjoint(headers):
        return plain
    return msgspec.structs.replace(
        plain,
        cache=_cache_mode(headers, controls),
        tags=frozenset(controls.tags) if controls else _NO_TAGS,
        bounds=_bounds(headers, controls),
        repeat_key=_repeat_key(headers),
        max_nano_usd=_max_nano_usd(headers, controls),
    )


def _repeat_key(headers: RawHeaders) -> str | None:
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1")
    if not 1 <= len(key) <= MAX_REPEAT_KEY or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            f"idempotency-key: expected 1 to {MAX_REPEAT_KEY} printable ASCII characters",
            param="idempotency-key",
        )
    return key


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise InvalidRequest(f"the body is not valid JSON: {exc}", code="invalid_json") from exc
    if type(body) is not dict:
        raise InvalidRequest(
            f"expected a JSON object as the body, found {_json_name(body)}", code="invalid_json"
        )
    _check_depth(raw, body)
    if not _FORBIDDEN.isdisjoint(body):
        name = sorted(_FORBIDDEN & body.keys())[0]
        raise InvalidRequest(
            f"{name!r} may not be set by a request; upstreams and credentials come from the policy",
            param=name,
        )
    if b"\\u0000" in raw and _has_nul(body):
        raise InvalidRequest("a text holds the NUL character; remove it", code="invalid_text")
    return body


def _check_depth(raw: bytes, body: object) -> None:
    # Counting brackets is free next to parsing, and only a body with this many can be deep.
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    level: list[object] = [body]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels", code="invalid_json")


def _children(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value
    assert isinstance(inner, Iterable)
    return [child for child in inner if isinstance(child, dict | list)]


def _typed(body: dict[str, Any]) -> _ChatFields:
    try:
        return msgspec.convert(body, _ChatFields)
    except msgspec.ValidationError as exc:
        problem, _, where = str(exc).partition(" - at `$.")
        param = where.rstrip("`") or None
        if problem.startswith("Object missing required field"):
            param = param or problem.split("`")[1]
        raise InvalidRequest(f"{param or 'body'}: {problem}", param=param) from exc


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(k) or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _has_images(messages: list[_Message]) -> bool:
    return any(
        part.get("type") in ("image_url", "input_image", "image")
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )


def _cache_mode(headers: RawHeaders, controls: _Controls | None) -> CacheMode:
    for name in _LATER_HEADERS:
        if name in headers:
            said = name.decode()
            raise InvalidRequest(f"the header {said} is not built yet; leave it out", param=said)
    header = headers.get(b"x-frugal-cache", b"").decode("latin-1")
    asked = header or (controls.cache if controls else None)
    if asked not in (None, "exact", "off"):
        raise InvalidRequest(
            f"x-frugal-cache: expected exact or off, found {asked!r}", param="x-frugal-cache"
        )
    control = headers.get(b"cache-control", b"").lower()
    if asked == "off" or (b"no-store" in control and b"no-cache" in control):
        return "off"
    if b"no-store" in control:
        return "no-store"
    if b"no-cache" in control:
        return "refresh"
    return "exact" if asked else "use"


def _max_nano_usd(headers: RawHeaders, controls: _Controls | None) -> int | None:
    written = headers.get(_MAX_USD.encode())
    if written is None:
        most = controls.max_usd if controls else None
        return None if most is None else int(Decimal(str(most)) * _NANO)
    try:
        usd = Decimal(written.decode("ascii"))
        if not 0 <= usd <= 1_000_000:
            raise ValueError
    except (ValueError, ArithmeticError) as exc:
        raise InvalidRequest(
            f"{_MAX_USD}: expected dollars such as 0.02, found something else", param=_MAX_USD
        ) from exc
    return int(usd * _NANO)


def _bounds(headers: RawHeaders, controls: _Controls | None) -> Bounds:
    control = headers.get(b"cache-control")
    bounds = ANY_AGE if control is None else read_bounds(control.decode("latin-1"))
    if controls is None or controls.cache_ttl is None:
        return bounds
    return replace(bounds, ttl=controls.cache_ttl)


def _json_name(value: object) -> str:
    return {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(
        type(value), "a number"
    )
