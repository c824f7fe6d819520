"""The values of a policy that are more than text and numbers: units, names, secrets, paths."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
)

from policies.units import not_a_bool, parse_bytes, parse_duration

DurationText = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$")]
BytesText = Annotated[str, Field(pattern=r"^[0-9]+\s*(B|KB|MB|GB|KiB|MiB)$")]


def in_folder(path: Path, info: ValidationInfo) -> Path:
    """Take a relative path from the policy's folder, where one is known."""
    folder = (info.context or {}).get("folder")
    if folder is None:
        return path
    try:
        return Path(folder, path.expanduser())
    except RuntimeError as exc:
        raise ValueError("expected a path, found the home folder of an unknown user") from exc


def _checkpoint(name: str, info: ValidationInfo) -> str:
    """Read what looks like a path, or is one, as a path; leave shipped and hub names alone."""
    if name.startswith("demo/") or not (info.context or {}).get("folder"):
        return name
    path = in_folder(Path(name), info)
    return str(path) if name.startswith((".", "/", "~")) or path.exists() else name


def _redis_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        is_known = parts.scheme in ("redis", "rediss", "unix") and parts.port != 0
    except ValueError:
        is_known = False
    if not is_known or not (parts.hostname or parts.path):
        raise ValueError("expected redis://host:6379/0, rediss://… or unix:///path, found another")
    return url


def _postgres_url(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected postgresql://user:password@host:5432/database, found another")
    return url


def _vector_place(place: SecretStr) -> SecretStr:
    told = place.get_secret_value()
    if told != "faiss" and not told.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected faiss or postgresql://user@host/database, found another")
    return place


def _without_password(url: str) -> str:
    """Return a ledger's URL as it may be shown."""
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}:***@{place}" if at and ":" in login else url


_Duration = BeforeValidator(parse_duration, json_schema_input_type=float | DurationText)
Duration = Annotated[float, Field(gt=0), _Duration]
DurationOrZero = Annotated[float, Field(ge=0), _Duration]
Bytes = Annotated[
    int, Field(gt=0), BeforeValidator(parse_bytes, json_schema_input_type=int | BytesText)
]
Whole = Annotated[int, BeforeValidator(not_a_bool, json_schema_input_type=int)]
Real = Annotated[float, BeforeValidator(not_a_bool, json_schema_input_type=float)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Usd = Annotated[
    Decimal, Field(ge=0, le=1_000_000), BeforeValidator(not_a_bool, json_schema_input_type=float)
]
Factor = Annotated[
    Decimal, Field(ge=0, le=100), BeforeValidator(not_a_bool, json_schema_input_type=float)
]
Share = Annotated[
    Decimal, Field(ge=0, lt=1), BeforeValidator(not_a_bool, json_schema_input_type=float)
]
Switch = Annotated[
    Literal["auto", "off"],
    # YAML 1.1 reads a bare `off` as False.
    BeforeValidator(lambda value: "off" if value is False else value),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]
Secret = Annotated[SecretStr, PlainSerializer(lambda _: "***", when_used="json")]
RedisUrl = Annotated[
    SecretStr, AfterValidator(_redis_url), PlainSerializer(lambda _: "***", when_used="json")
]
VectorPlace = Annotated[
    SecretStr,
    AfterValidator(_vector_place),
    PlainSerializer(
        lambda place: "***" if "://" in place.get_secret_value() else "faiss", when_used="json"
    ),
]
LedgerUrl = Annotated[str, PlainSerializer(_without_password, when_used="json")]
PostgresUrl = Annotated[
    str, AfterValidator(_postgres_url), PlainSerializer(_without_password, when_used="json")
]
FilePath = Annotated[Path, AfterValidator(in_folder)]
Checkpoint = Annotated[str, AfterValidator(_checkpoint)]
