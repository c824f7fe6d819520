"""Who is told when money runs out or quality falls, as an operator writes it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from policies.scalars import Probability, Secret
from policies.section import Section

Event = Literal["budget", "error_budget", "breaker", "drift", "learning"]


def _webhook(url: SecretStr) -> SecretStr:
    try:
        text = url.get_secret_value()
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_one = is_one and text.isascii() and text.isprintable() and " " not in text
    except ValueError:
        is_one = False
    if not is_one or parts.username is not None:
        raise ValueError("expected an http:// or https:// URL without credentials, found another")
    return url


class Alerts(Section):
    """A webhook, and what is posted to it.

    `budget`: a budget has passed one of the `thresholds` (shares of it), or
    refuses; `error_budget`: audits found more wrong hits of the semantic cache than
    its route allows, or few enough again; `breaker`: the breaker of a model has
    opened, or closed; `drift`: traffic or a model is no longer what a route has
    learnt from; `learning`: that, and any other reason for which it fell back a
    step. With a `secret`, each post is signed. The URL is a secret too: it often
    holds one.
    """

    url: Annotated[Secret, AfterValidator(_webhook)]
    events: tuple[Event, ...] = ("budget", "error_budget", "breaker", "drift", "learning")
    thresholds: tuple[Annotated[Probability, Field(gt=0)], ...] = Field((0.8, 1.0), max_length=16)
    secret: Secret | None = None
