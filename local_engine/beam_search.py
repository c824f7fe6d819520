"""Beam search over an engine: each step of a beam is a request of one token.

What beams have in common lies in the cache's pages already, so a step computes what its
last page lacks. Steps share batches with everything else that the engine does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from local_engine.beams import Beam, BeamRules, Beams
from local_engine.engine import Engine, Generation
from local_engine.errors import DeadlineExceeded, EngineStopped
from local_engine.tokenizer import TextStream, Tokenizer
from local_engine.types import Finish, GenerationRequest, Sampling, Token

_GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a search, as if it had been generated alone."""

    tokens: list[Token]
    finish: Finish


async def beam_search(
    engine: Engine, request: GenerationRequest, rules: BeamRules, answers: int
) -> list[Answer]:
    """Return the best answers to a prompt, the best first; raises what `submit` raises.

    What the whole search computed is charged to the first of them.
    """
    beams, costs = Beams(rules), _Costs()
    started = time.perf_counter()
    while not beams.is_over:
        left = _left(request, time.perf_counter() - started)
        steps = [
            _step(request, beam, n, rules.candidates, left) for n, beam in enumerate(beams.running)
        ]
        beams.advance(await _drawn(engine, steps, costs))
    tokenizer = engine.model.tokenizer
    found = beams.answers[:answers]
    return [_answer(request, beam, n, rules, costs, tokenizer) for n, beam in enumerate(found)]


@dataclass(slots=True)
class _Costs:
    compute_s: float = 0.0
    queue_s: float | None = None


def _left(request: GenerationRequest, elapsed: float) -> float | None:
    """Return the seconds until the deadline."""
    if request.deadline_s is None:
        return None
    if elapsed >= request.deadline_s:
        raise DeadlineExceeded()
    return request.deadline_s - elapsed


def _step(
    request: GenerationRequest, beam: Beam, n: int, candidates: int, left: float | None
) -> GenerationRequest:
    return replace(
        request,
        id=f"{request.id}/{len(beam.tokens)}/{n}",
        prompt=(*request.prompt, *beam.ids),
        max_tokens=1,
        sampling=_GREEDY,
        top_logprobs=candidates,
        ignore_end=True,
        group="",
        deadline_s=left,
        is_continued=bool(beam.tokens),
    )


async def _drawn(engine: Engine, steps: Sequence[GenerationRequest], costs: _Costs) -> list[Token]:
    async with AsyncExitStack() as stack:
        generations = [await stack.enter_async_context(engine.submit(s)) for s in steps]
        return [await _only(generation, costs) for generation in generations]


async def _only(generation: Generation, costs: _Costs) -> Token:
    tokens = [token async for token in generation]
    finish = generation.finish
    if finish is None or finish.reason == "cancelled":
        raise EngineStopped("The engine stopped before the answer was complete.")
    costs.compute_s += finish.compute_s
    costs.queue_s = finish.queue_s if costs.queue_s is None else costs.queue_s
    return tokens[0]


def _answer(
    request: GenerationRequest,
    beam: Beam,
    place: int,
    rules: BeamRules,
    costs: _Costs,
    tokenizer: Tokenizer,
) -> Answer:
    """Give the tokens of a beam their text, and account for it."""
    is_ended = beam.tokens[-1].id in rules.end_ids
    stream = TextStream(tokenizer, (), request.shown)
    tokens = []
    for place_in, token in enumerate(beam.tokens, 1):
        is_end = is_ended and place_in == len(beam.tokens)
        text = "" if is_end else stream.push(token.id).text
        if place_in == len(beam.tokens):
            text += stream.finish().text
        data = b"" if is_end else stream.data_of(token.id)
        top = token.top[: request.top_logprobs]
        tokens.append(replace(token, text=text, data=data, top=top, is_end=is_end))
    finish = Finish(
        "stop" if is_ended else "length",
        prompt_tokens=len(request.prompt),
        completion_tokens=len(tokens),
        compute_s=0.0 if place else costs.compute_s,
        queue_s=costs.queue_s or 0.0,
    )
    return Answer(tokens, finish)
