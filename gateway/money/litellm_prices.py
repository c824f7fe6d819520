"""Prices from a LiteLLM price map (`model_prices_and_context_window.json`), as a price file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gateway.money.errors import PriceError

_PER_MTOK = {
    "input_cost_per_token": "input_per_mtok_usd",
    "output_cost_per_token": "output_per_mtok_usd",
    "cache_read_input_token_cost": "cached_input_per_mtok_usd",
    "cache_creation_input_token_cost": "cache_write_per_mtok_usd",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_per_mtok_usd",
    "output_cost_per_reasoning_token": "reasoning_per_mtok_usd",
    "input_cost_per_audio_token": "audio_per_mtok_usd",
    "output_cost_per_audio_token": "audio_output_per_mtok_usd",
}
_MTOK = Decimal(1_000_000)
_BY_TOKEN = ("input_cost_per_token", "output_cost_per_token")


@dataclass(frozen=True, slots=True)
class Imported:
    """What could be carried over, and what could not and why, by model."""

    models: Mapping[str, Mapping[str, Decimal]]
    left_out: Mapping[str, str]
    partly: Mapping[str, tuple[str, ...]]


def read_litellm_prices(path: Path, *, provider: str | None = None, pattern: str = "*") -> Imported:
    """Read the chat, completion and embedding models of a map.

    `provider` is LiteLLM's word for it, `pattern` a shell pattern of names.
    Names lose the provider's prefix, as upstreams do not know it; of two that
    are then alike, the first stays. Raises PriceError.
    """
    try:
        document = json.loads(path.read_bytes(), parse_float=Decimal)
    except OSError as exc:
        raise PriceError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise PriceError(f"{path}: expected JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise PriceError(f"{path}: expected an object of models, as LiteLLM's price map is")
    models: dict[str, Mapping[str, Decimal]] = {}
    left_out: dict[str, str] = {}
    partly: dict[str, tuple[str, ...]] = {}
    for key, row in document.items():
        if key == "sample_spec" or not isinstance(row, dict):
            continue
        seller = str(row.get("litellm_provider", ""))
        name = key.removeprefix(f"{seller}/")
        if (provider and seller != provider) or not fnmatchcase(name, pattern):
            continue
        if reason := _unable(row, is_taken=name in models):
            left_out[key] = reason
            continue
        models[name] = _amounts(row, f"{path}: {key}")
        if rest := _not_carried(row):
            partly[name] = rest
    if not models:
        raise PriceError(f"{path}: no model there is priced by the token and meets what was asked")
    return Imported(models, left_out, partly)


def _unable(row: Mapping[str, Any], *, is_taken: bool) -> str:
    if any(row.get(name) is None for name in _BY_TOKEN):
        return "not priced by the token"
    return "another model has that name already" if is_taken else ""


def _amounts(row: Mapping[str, Any], where: str) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for theirs, ours in _PER_MTOK.items():
        if (value := row.get(theirs)) is None:
            continue
        if type(value) not in (int, Decimal) or not 0 <= value <= 1:
            raise PriceError(f"{where}.{theirs}: expected dollars a token, found {value!r}")
        amounts[ours] = (value * _MTOK).normalize()
    return amounts


def _not_carried(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the priced things that a price file has no word for."""
    return tuple(
        sorted(
            name
            for name, value in row.items()
            if name not in _PER_MTOK and "cost" in name and value not in (None, 0, {})
        )
    )


def price_file(imported: Imported, source: str) -> str:
    """Return the text of a price file, for `price: {file: …}` in a policy."""
    models = {
        model: {name: f"{amount:f}" for name, amount in row.items()}
        for model, row in imported.models.items()
    }
    return json.dumps({"source": source, "models": models}, indent=1) + "\n"
