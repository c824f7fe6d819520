"""What the gateway tells of itself beside metrics: traces and logs, as an operator writes it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from policies.scalars import Probability, Secret
from policies.section import Section


def _collector(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "expected the http:// or https:// URL of an OTLP collector, such as "
            "http://127.0.0.1:4318, without credentials (they go into headers); found another"
        )
    return url.rstrip("/")


class Traces(Section):
    """Where traces go, over OTLP/HTTP, and of which requests.

    `endpoint` is the collector's base URL; `/v1/traces` is added to it. A request
    whose client traces it itself is traced as its `traceparent` says, while
    `follow` is on; of the others a share of `sample`. Prompts and answers go
    with a trace only with `texts`; credentials in them are blotted out.
    """

    endpoint: Annotated[str, AfterValidator(_collector)]
    headers: dict[str, Secret] = Field(default_factory=dict)
    sample: Probability = 0.1
    follow: bool = True
    texts: bool = False
    service: Annotated[str, Field(min_length=1, max_length=128)] = "frugal-gateway"


class Logs(Section):
    """What is written to standard error, and how; `requests` adds a line for each request."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False


class Telemetry(Section):
    """Traces and logs. Metrics need no switch: `/metrics` on the admin port."""

    traces: Traces | None = None
    logs: Logs = Logs()
