"""Which requests may share an answer in other words, and which never.

All of a request but its last question is its scope: tenant, route, revision of
the policy, system prompt, earlier turns, every parameter that may change the
answer, and the locale. Only questions of one scope are compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.fingerprint import IGNORED, PARTITION_BYTES, fingerprint

MAX_CHARACTERS = 1500

_CALM = 0.5
_HOTTEST = 1.0
_LOCALES = ("locale", "language", "lang")
_NOT_SHARED = ("tools", "functions")
_NOW = re.compile(
    r"\b(now|nowadays|today|tonight|tomorrow|yesterday|current(ly)?|latest|newest|recent(ly)?"
    r"|live|upcoming|breaking|up[- ]to[- ]date|so far|as of|(this|next|last|past) "
    r"(second|minute|hour|morning|afternoon|evening|night|week(end)?|month|quarter|season|year"
    r"|monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    r"|what (time|day|date) is it|weather|forecast|stock price|exchange rate|news"
    r"|heute|jetzt|gestern|morgen|aktuell\w*|derzeit|momentan|wetter"
    r"|aujourd'hui|maintenant|hier|demain|actuel\w*|météo"
    r"|hoy|ahora|ayer|mañana|actual(es|mente)?|clima"
    r"|oggi|adesso|ieri|domani|hoje|agora|ontem|amanhã)\b"
    r"|今日|今天|现在|最新|오늘|지금|сегодня|сейчас|вчера|завтра",
    re.IGNORECASE,
)
_CREATIVE = re.compile(
    r"\b(write|compose|create|make up|invent|imagine|draft|generate|brainstorm|tell)\b.{0,60}"
    r"\b(poems?|haikus?|limericks?|story|stories|songs?|lyrics|jokes?|slogans?|taglines?|names?"
    r"|ideas?|novels?|tales?|scripts?|screenplays?|characters?|dialogues?|riddles?|raps?|verses?)\b"
    r"|\b(random|surprise me|brainstorm)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the 32 bytes that must agree for its answer to serve another.

    The first 8 are its owner: the partition of its tenant, or of the corpus it is shared in.
    """

    question: str
    scope: bytes
    tenant: str
    route: str

    @property
    def owner(self) -> bytes:
        """Return whose the answer is to be."""
        return self.scope[:PARTITION_BYTES]


def asked_of(
    tenant: str,
    route: str,
    revision: str,
    body: Mapping[str, Any],
    *,
    locale: str = "",
    corpus: str | None = None,
) -> Asked | str:
    """Return what a request asks and its scope, or why its answer is not to be shared.

    `body` is a checked chat request; the reason is one word or a few, for counts.
    Tenants that share a `corpus` have one scope.
    """
    if reason := _unfit(body):
        return reason
    *earlier, last = body["messages"]
    question = _text_of(last.get("content"))
    if reason := _unfit_question(question, body.get("temperature")):
        return reason
    rest = {
        **{name: value for name, value in body.items() if name not in IGNORED},
        # The last message without its words; a name beside them stays.
        "messages": [*earlier, {k: v for k, v in last.items() if k != "content"}],
        "frugal_locale": (locale, *_told_locales(body)),
    }
    scope = fingerprint(tenant, route, revision, rest, corpus=corpus)
    return Asked(question, scope, tenant, route)


def _unfit(body: Mapping[str, Any]) -> str | None:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    if any(body.get(name) for name in _NOT_SHARED) or any(map(_calls_tools, messages)):
        return "tools"
    if (body.get("n") or 1) > 1:
        return "n"
    if body.get("logprobs") or body.get("modalities") or body.get("audio"):
        return "output"
    if messages[-1].get("role") != "user":
        return "turn"
    if any(_has_attachment(message.get("content")) for message in messages):
        return "attachment"
    return None


def _unfit_question(question: str, temperature: float | None) -> str | None:
    if not question.strip():
        return "empty"
    if len(question) > MAX_CHARACTERS:
        return "long"
    if temperature is not None and temperature > _HOTTEST:
        return "temperature"
    # An API's own default is 1, so a poem asked for without a word about it is meant to vary.
    if (temperature is None or temperature > _CALM) and _CREATIVE.search(question):
        return "creative"
    return "now" if _NOW.search(question) else None


def _calls_tools(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call")) or message.get(
        "role"
    ) in ("tool", "function")


def _has_attachment(content: object) -> bool:
    return isinstance(content, list) and any(part.get("type") != "text" for part in content)


def _text_of(content: object) -> str:
    if isinstance(content, list):
        texts = [part.get("text") for part in content]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _told_locales(body: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the locale that some applications put beside the request."""
    told = body.get("metadata")
    return tuple(told.get(name) for name in _LOCALES) if isinstance(told, Mapping) else ()
