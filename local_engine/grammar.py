"""Answers of a given form: what a client asks for, compiled into masks over the vocabulary.

A schema, an expression or a grammar comes from a client and may be hostile, so its size,
the time to compile it and the work of each mask are bounded; what goes past a bound is
refused by name when compiled, and ends that one request when it happens later.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from local_engine.errors import InvalidRequest, Unsupported
from local_engine.form_trial import LIMITS, needs_trial, survives
from local_engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_SOURCE_BYTES = 64 << 10
_NESTING = 64
_KEPT = 64


class Constraint:
    """A compiled form, shared by all requests that ask for it."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def begin(self) -> Progress:
        """Return the way of one answer through it."""
        return Progress(self._matcher.deep_copy())


class Progress:
    """How far one answer has come in its form; knows only accepted tokens.

    A preempted request is computed again with the tokens it has, so nothing is taken back.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_complete(self) -> bool:
        """Tell whether nothing but the end may follow."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> bytes:
        """Return one bit for each token, the lowest first, set where it may come next.

        Raises `ValueError` where the form takes more work than allowed.
        """
        mask: bytes = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accept(self, token: int) -> None:
        """Go on by one token; raises `ValueError` where it does not belong here."""
        self._matcher.consume_token(token)
        self._check()

    def masks(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the masks before each of some tokens and after the last, accepting none.

        Ends early with the mask before the first token that does not belong.
        """
        masks = [self.mask()]
        taken = 0
        for token in tokens:
            if self.is_complete or not _has(masks[-1], token):
                break
            self.accept(token)
            taken += 1
            masks.append(self.mask())
        if taken:
            self._matcher.rollback(taken)
        return masks

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[:1]
            raise ValueError(f"the asked-for form cannot be followed: {''.join(reason)[:200]}")


def _has(mask: bytes, token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


class Grammars:
    """Compile forms for one tokenizer; the latest are kept.

    May be called from any thread. `vocab` is the model's, which may be more than the
    tokenizer knows; what it does not know never comes.
    """

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int], vocab: int) -> None:
        self.tokenizer = tokenizer
        self._end_ids = sorted(i for i in end_ids if i < vocab)
        self._vocab = vocab
        self._lock = threading.Lock()
        self._prepared: LLTokenizer | None = None
        self._kept: OrderedDict[str, Constraint] = OrderedDict()

    def schema(self, schema: Mapping[str, Any] | bool, param: str) -> Constraint:
        """Compile a JSON schema; raises `InvalidRequest` naming `param`."""
        if isinstance(schema, bool):  # everything fits true, and nothing false
            schema = {} if schema else {"enum": []}
        text = _written(schema, param)
        library = _library()
        try:
            grammar = library.LLMatcher.grammar_from_json_schema(
                text, overrides={"whitespace_flexible": False}
            )
        except ValueError as exc:  # what JSON allows and Unicode or this library does not
            raise InvalidRequest(f"{param} cannot be followed: {exc}", param) from exc
        return self.compile(grammar, param)

    def regex(self, expression: str, param: str) -> Constraint:
        """Compile a regular expression that the whole answer must match."""
        library, text = _library(), _unicode(expression, param)
        return self.compile(library.LLMatcher.grammar_from_regex(text), param)

    def lark(self, grammar: str, param: str, *, is_ours: bool = False) -> Constraint:
        """Compile a grammar in llguidance's dialect of Lark; `is_ours` but for its schemas."""
        library, text = _library(), _unicode(grammar, param)
        return self.compile(library.LLMatcher.grammar_from_lark(text), param, is_tried=not is_ours)

    def compile(self, grammar: str, param: str, *, is_tried: bool = False) -> Constraint:
        """Compile a grammar in llguidance's own form, or take it from the kept ones.

        One that might grow while it is compiled is tried elsewhere first, as `is_tried` asks
        for any.
        """
        if len(grammar) > 2 * _SOURCE_BYTES:
            raise InvalidRequest(f"{param} must stay under {_SOURCE_BYTES} bytes.", param)
        with self._lock:
            found = self._kept.get(grammar)
            if found is None:
                if (is_tried or needs_trial(grammar)) and not survives(grammar):
                    raise InvalidRequest(f"{param} is too large once it is written out.", param)
                found = self._kept[grammar] = Constraint(self._compiled(grammar, param))
            self._kept.move_to_end(grammar)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    def _compiled(self, grammar: str, param: str) -> LLMatcher:
        library = _library()
        limits = library.LLParserLimits(**LIMITS)
        matcher: LLMatcher = library.LLMatcher(
            self._tokenizer(), grammar, log_level=0, limits=limits
        )
        # The first mask shows what compiling alone does not: that it can be computed in bounds.
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise InvalidRequest(f"{param} cannot be followed: {matcher.get_error()[:300]}", param)
        return matcher

    def _tokenizer(self) -> LLTokenizer:
        if self._prepared is None:
            library = _library()
            words = _Words(self.tokenizer, self._end_ids, self._vocab)
            self._prepared = library.LLTokenizer(
                library.TokenizerWrapper(words), n_vocab=self._vocab, eos_token=self._end_ids
            )
        return self._prepared


def _library() -> Any:
    """Import llguidance, which nothing but forms of answers needs."""
    try:
        import llguidance
    except ImportError as exc:
        raise Unsupported(
            "Answers of a given form need llguidance, which is in the extra frugal-gateway[local]."
        ) from exc
    return llguidance


class _Words:
    """A tokenizer as llguidance wants to see one."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int], vocab: int) -> None:
        if not end_ids:
            raise Unsupported("This checkpoint names no end token, so no form can be asked for.")
        self._tokenizer = tokenizer
        self.eos_token_id = end_ids[0]
        self.bos_token_id = None
        self.tokens = [tokenizer.label(i) or b"<|%d|>" % i for i in range(vocab)]
        self.special_token_ids = [i for i in range(vocab) if not tokenizer.bytes_of(i)]

    def __call__(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special=False))


def _unicode(text: str, param: str) -> str:
    """Return a text that can be encoded; raises `InvalidRequest` for one that cannot."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequest(f"{param} holds a lone surrogate, which is no character.", param)
    return text


def _written(schema: Mapping[str, Any] | bool, param: str) -> str:
    """Write a schema as JSON, within bounds of size and nesting."""
    if _depth(schema, _NESTING) > _NESTING:
        raise InvalidRequest(f"{param} must be nested {_NESTING} levels deep at most.", param)
    text = json.dumps(schema)
    if len(text) > _SOURCE_BYTES:
        raise InvalidRequest(f"{param} must stay under {_SOURCE_BYTES} bytes.", param)
    return text


def _depth(value: Any, most: int) -> int:
    """Return how deep a value is nested; anything deeper than `most` counts alike."""
    level, current = 0, [value]
    while current and level <= most:
        inner = [v.values() if isinstance(v, dict) else v for v in current]
        current = [i for v in inner if not isinstance(v, str | int | float | None) for i in v]
        level += 1
    return level
