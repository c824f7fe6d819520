"""Whether a model is able to serve a request at all: pure, and asked before anything is paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.rules import RequestFacts
from router.types import Capabilities, Skip

UNLIMITED = Capabilities()


@dataclass(frozen=True, slots=True)
class Lack:
    """The capability that a model lacks for a request, by its key in a policy, and in words."""

    capability: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.capability} ({self.detail})" if self.detail else self.capability


def why_unable(capabilities: Capabilities, facts: RequestFacts) -> Lack | None:
    """Return what the model lacks for this request, or None when it is able.

    A capability that is not known (None) is taken as present: the upstream
    itself will say otherwise, and that is then its error.
    """
    context, max_output = capabilities.context, capabilities.max_output
    wanted = facts.max_tokens or 0
    if max_output is not None and wanted > max_output:
        return Lack("max_output", f"asked for {wanted} tokens, the model writes {max_output}")
    if context is not None and facts.input_tokens + wanted > context:
        needed = facts.input_tokens + wanted
        return Lack("context", f"needs about {needed} tokens, the model has {context}")
    if facts.has_tools and capabilities.tools is False:
        return Lack("tools")
    if facts.has_images and capabilities.vision is False:
        return Lack("vision")
    if facts.json_schema and capabilities.json_schema is False:
        return Lack("json_schema")
    if facts.logprobs and capabilities.logprobs is False:
        return Lack("logprobs")
    return None


class Able:
    """What each model can do, and who of a list is able to serve a request."""

    def __init__(self, capabilities: Mapping[str, Capabilities]) -> None:
        self._known = {m: c for m, c in capabilities.items() if c != UNLIMITED}

    def limited(self, models: Iterable[str]) -> tuple[Capabilities, ...]:
        """Return what those of the models can do of which something is known."""
        return tuple(self._known[m] for m in dict.fromkeys(models) if m in self._known)

    def has_logprobs(self, model: str) -> bool:
        """Return whether a model may report token log-probabilities."""
        return self._known.get(model, UNLIMITED).logprobs is not False

    def split(self, models: Iterable[str], facts: RequestFacts) -> tuple[list[str], list[Skip]]:
        """Return the models that are able, in their order, and why the others are not."""
        able: list[str] = []
        skipped: list[Skip] = []
        for model in models:
            known = self._known.get(model)
            lack = None if known is None else why_unable(known, facts)
            if lack is None:
                able.append(model)
            else:
                skipped.append(skip_for(model, lack))
        return able, skipped


def skip_for(model: str, lack: Lack) -> Skip:
    """Return the line of the path that says why a model was left out."""
    return Skip(model, lack.capability, lack.detail)
