"""Checks of one model: a known provider, with what it needs and nothing it would ignore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from policies.checks.outline import Outline
from policies.document import Document
from policies.explain import nearest
from policies.kinds import PROVIDERS, REMOTE_PROVIDERS, is_class_path
from policies.problems import KeyPath
from policies.resilience import Deployment
from policies.schema import Model, Price

_HOSTED = {
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
}
"""Providers with an address of their own, and where their key is usually kept."""
_FIELDS_OF = {
    "local": frozenset(
        {
            "checkpoint",
            "quantization",
            "kv",
            "threads",
            "max_batch",
            "max_queue",
            "guesses",
            "draft",
            "adapters",
            "long_context",
        }
    ),
    "recorded": frozenset({"outcomes", "latency"}),
    "remote": frozenset(
        {"base_url", "api_key", "tls", "deployments", "balance", "health", "prompt_cache"}
    ),
}
_NEEDED = {
    "local": ("checkpoint", "name a directory, or demo/tiny"),
    "recorded": ("outcomes", "name the table of outcomes"),
    "remote": ("base_url", "for example http://127.0.0.1:8000/v1"),
}


def check_models(outline: Outline, document: Document) -> None:
    """Report what is wrong with the models."""
    for name, model in outline.models.items():
        path = ("models", name)
        if model.provider in PROVIDERS:
            _check_known_provider(model, path, document)
        elif not is_class_path(model.provider):
            known = [*PROVIDERS, "package.module:Class"]
            hint = nearest(model.provider, known) or "known: " + ", ".join(known)
            message = f"unknown provider {document.found((*path, 'provider'))}"
            document.report((*path, "provider"), message, hint)
        _check_address(model, path, document)
        _check_deployments(model, path, document)
        _check_price(model, path, document)
        _check_files(model, path, document)


def _check_known_provider(model: Model, path: KeyPath, document: Document) -> None:
    family = "remote" if model.provider in REMOTE_PROVIDERS else model.provider
    needed, hint = _NEEDED[family]
    has_address = getattr(model, needed) is not None or bool(model.deployments)
    if not has_address and model.provider not in _HOSTED:
        document.report((*path, needed), f"provider {model.provider} needs it", hint)
    for other, fields in _FIELDS_OF.items():
        for field in sorted(fields & model.model_fields_set) if other != family else ():
            message = f"'{field}' means nothing to provider {model.provider}"
            document.report((*path, field), message, "remove it", at_key=True)
    if model.provider in _HOSTED and not has_address and model.api_key is None:
        url, variable = _HOSTED[model.provider]
        hint = f"write api_key: ${{{variable}}}, or a base_url"
        document.report((*path, "api_key"), f"{url} needs it", hint)
    if model.provider == "anthropic" and model.logprobs:
        message = "the Messages API reports no log-probabilities"
        document.report((*path, "logprobs"), message, "remove it", at_key=True)


def _check_address(model: Model, path: KeyPath, document: Document) -> None:
    for where, section in _addressed(model, path):
        if section.base_url is not None and (fault := _fault_of_url(section.base_url)):
            document.report((*where, "base_url"), fault, "for example http://127.0.0.1:8000/v1")
        if section.api_key is not None and not _can_be_sent(section.api_key.get_secret_value()):
            document.report((*where, "api_key"), "expected visible ASCII characters without spaces")


def _addressed(model: Model, path: KeyPath) -> Iterator[tuple[KeyPath, Model | Deployment]]:
    yield path, model
    for index, deployment in enumerate(model.deployments):
        yield (*path, "deployments", index), deployment


def _check_deployments(model: Model, path: KeyPath, document: Document) -> None:
    if model.deployments and model.base_url is not None:
        hint = "remove it, or make it one of the deployments"
        message = "'base_url' means nothing beside deployments"
        document.report((*path, "base_url"), message, hint, at_key=True)
    if "balance" in model.model_fields_set and len(model.deployments) < 2:
        message = "'balance' means nothing without several deployments"
        document.report((*path, "balance"), message, "remove it", at_key=True)
    seen: set[str] = set()
    for index, deployment in enumerate(model.deployments):
        if deployment.base_url in seen:
            where = (*path, "deployments", index, "base_url")
            document.report(where, "this deployment stands twice", "give one a larger weight")
        seen.add(deployment.base_url)


def _fault_of_url(url: str) -> str | None:
    """Say what is wrong with a URL, without repeating it: it could hold a password."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "expected a URL, found something that is none"
    if parts.scheme not in ("http", "https") or not has_host or not _can_be_sent(url):
        return "expected an http:// or https:// URL with a host"
    if parts.username is not None or parts.password is not None:
        return "a URL may not hold credentials: use api_key"
    return "a base URL has no query and no fragment" if parts.query or parts.fragment else None


def _can_be_sent(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _check_price(model: Model, path: KeyPath, document: Document) -> None:
    price = model.price
    if not isinstance(price, Price):
        return
    if not document.at((*path, "price")):
        hint = "write prices, a file, or unknown_is_free"
        document.report((*path, "price"), "expected at least one price, found none", hint)


def _check_files(model: Model, path: KeyPath, document: Document) -> None:
    price = model.price if isinstance(model.price, Price) else Price()
    named: list[tuple[KeyPath, Path | None]] = [
        (("outcomes",), model.outcomes),
        (("price", "file"), price.file),
        (("tls", "ca_file"), model.tls.ca_file),
        (("adapters",), model.adapters),
        (("checkpoint",), None if model.checkpoint is None else Path(model.checkpoint)),
        (("draft",), None if model.draft is None else Path(model.draft)),
    ]
    for below, file in named:
        if file is not None and file.is_absolute() and not file.exists():
            message = f"nothing stands at {document.found((*path, *below))}"
            document.report((*path, *below), message, "paths start at the policy's folder")
