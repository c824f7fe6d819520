"""Rotary positions as config.json describes them, in its older and its newer spelling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from local_engine.fields import Fields

Kind = Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"]

_KNOWN = frozenset(
    (
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "attention_factor",
        "original_max_position_embeddings",
        "short_factor",
        "long_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "partial_rotary_factor",
    )
)


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions of some layers.

    The first `width` numbers of a head are turned. `magnitude` multiplies cosine and sine.
    `low` and `high` bound what is stretched: frequency factors (llama3) or turns within the
    original context (yarn). `divisors` are longrope's, one for each frequency.
    """

    theta: float
    width: int
    kind: Kind = "default"
    factor: float = 1.0
    magnitude: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_context: int = 8192
    truncates: bool = True
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """The contexts a checkpoint knows: as trained, as declared, and whether to use the latter."""

    original: int
    declared: int
    is_long: bool


def read_rope(fields: Fields, rope: Fields, theta: float, head_dim: int, span: Span) -> Rope:
    """Read one set of rotary settings, refusing what would be computed otherwise than meant."""
    unknown = sorted(set(rope.values) - _KNOWN)
    if unknown:
        raise rope.fail(unknown[0], "no such rotary setting", rope.values[unknown[0]])
    theta = (rope if "rope_theta" in rope else fields).number("rope_theta", 1.0, 1e12, theta)
    share_of = rope if "partial_rotary_factor" in rope else fields
    width = int(head_dim * share_of.number("partial_rotary_factor", 0.0, 1.0, 1.0))
    if width < 2 or width % 2:
        raise share_of.fail("partial_rotary_factor", "an even part of the head", width)
    kind = rope.text("rope_type", rope.text("type", "default"))
    match kind:
        case "default":
            return Rope(theta, width)
        case "linear":
            return Rope(theta, width, "linear", rope.number("factor", 1.0, 1e4))
        case "dynamic":
            factor = rope.number("factor", 1.0, 1e4) if span.is_long else 1.0
            return Rope(theta, width, "dynamic", factor, original_context=span.declared)
        case "llama3":
            return _llama3(rope, theta, width, span)
        case "yarn":
            return _yarn(rope, theta, width, span)
        case "longrope" | "su":
            return _longrope(rope, theta, width, span)
    known = "one of default, linear, dynamic, yarn, longrope, llama3"
    raise rope.fail("rope_type", known, kind)


def rope_span(fields: Fields, context: int, *, is_long: bool) -> Span:
    """Tell how far positions go: `original_max_position_embeddings` may stand in two places."""
    rope = fields.section("rope_parameters", "rope_scaling")
    source = fields if "original_max_position_embeddings" in fields else rope
    original = source.integer("original_max_position_embeddings", 1, 1 << 24, context)
    return Span(original, context, is_long)


def served_context(rope: Rope, span: Span) -> int:
    """Return how many positions the chosen frequencies are right for."""
    if rope.kind == "longrope" and not span.is_long:
        return min(span.original, span.declared)
    if rope.kind == "dynamic":
        return int(span.declared * rope.factor)
    return span.declared


def _llama3(rope: Fields, theta: float, width: int, span: Span) -> Rope:
    low = rope.number("low_freq_factor", 1e-3, 1e4)
    high = rope.number("high_freq_factor", 1e-3, 1e4)
    if high <= low:
        raise rope.fail("high_freq_factor", "more than low_freq_factor", high)
    factor = rope.number("factor", 1.0, 1e4)
    original = rope.integer("original_max_position_embeddings", 1, 1 << 24, span.original)
    return Rope(theta, width, "llama3", factor, low=low, high=high, original_context=original)


def _yarn(rope: Fields, theta: float, width: int, span: Span) -> Rope:
    if theta <= 1.0:
        raise rope.fail("rope_theta", "more than 1 for yarn", theta)
    factor = rope.number("factor", 1.0, 1e4, span.declared / span.original)
    slow, fast = rope.number("beta_slow", 1e-3, 1e4, 1.0), rope.number("beta_fast", 1e-3, 1e4, 32.0)
    if fast <= slow:
        raise rope.fail("beta_fast", "more than beta_slow", fast)
    mscale, all_dim = rope.number("mscale", 0, 100, 0.0), rope.number("mscale_all_dim", 0, 100, 0.0)
    magnitude = _yarn_magnitude(factor, 1.0)
    if mscale and all_dim:
        magnitude = _yarn_magnitude(factor, mscale) / _yarn_magnitude(factor, all_dim)
    return Rope(
        theta,
        width,
        "yarn",
        factor,
        rope.number("attention_factor", 1e-3, 1e3, magnitude),
        slow,
        fast,
        span.original,
        rope.flag("truncate", default=True),
    )


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(rope: Fields, theta: float, width: int, span: Span) -> Rope:
    factor = rope.number("factor", 1e-3, 1e4, span.declared / span.original)
    magnitude = 1.0
    if factor > 1.0:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(max(2, span.original)))
    return Rope(
        theta,
        width,
        "longrope",
        factor,
        rope.number("attention_factor", 1e-3, 1e3, magnitude),
        original_context=span.original,
        divisors=rope.numbers(
            "long_factor" if span.is_long else "short_factor", width // 2, 1e-3, 1e6
        ),
    )
