"""Forms of answers: what fits them comes, nothing else does, and hostile ones cost little."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from local_engine.body import Body
from local_engine.engine import Engine
from local_engine.errors import FormNotFollowed, GenerationFailed, InvalidRequest, Unsupported
from local_engine.form import form_of
from local_engine.form_trial import needs_trial
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.types import EngineLimits, GenerationRequest, Sampling
from tests.local_engine.support import prompt_of, run

pytest.importorskip("llguidance", reason="answers of a given form need llguidance")

Load = Callable[[str], LoadedModel]
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kind": {"enum": ["fox", "dog"]}},
    "required": ["age", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(loaded: Load) -> Grammars:
    model = loaded("llama")
    return Grammars(model.tokenizer, model.end_ids, model.config.vocab)


def asked(grammars: Grammars, **fields: Any) -> Any:
    return form_of(Body(fields), grammars)


def request(constraint: Any, *, seed: int = 0, id: str = "a", **rest: Any) -> GenerationRequest:
    sampling = Sampling(temperature=1.5, seed=seed)
    return GenerationRequest(id, prompt_of(seed, 9), 120, sampling, constraint=constraint, **rest)


async def text_of(engine: Engine, request: GenerationRequest) -> tuple[str, str]:
    tokens, finish = await run(engine, request)
    return "".join(t.text for t in tokens), finish.reason


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[a-c]{3}-[0-9]{2}x"}, "[a-c]{3}-[0-9]{2}x"),
        ({"guided_choice": ["the quick", "a+b", "ä (1)"]}, r"the quick|a\+b|ä \(1\)"),
        ({"response_format": {"type": "regex", "pattern": "(fox|dog){2}"}}, "(fox|dog){2}"),
        (
            {"response_format": {"type": "grammar", "grammar": 'start: "a" /[0-9]/ "b"'}},
            "a[0-9]b",
        ),
        ({"guided_json": {"type": "boolean"}}, "true|false"),
        (
            {"guided_json": {"type": "integer", "multipleOf": 70, "minimum": 70, "maximum": 99}},
            "70",
        ),
    ],
)
async def test_answers_have_the_form_asked_for(
    loaded: Load, grammars: Grammars, fields: dict[str, Any], pattern: str
) -> None:
    constraint = asked(grammars, **fields)
    async with Engine(loaded("llama")) as engine:
        for seed in range(4):
            text, reason = await text_of(engine, request(constraint, seed=seed, ignore_end=True))

            assert re.fullmatch(pattern, text)
            assert reason == "stop"


async def test_a_schema_is_kept_whatever_the_temperature(loaded: Load, grammars: Grammars) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    constraint = asked(grammars, response_format=form)
    whole = 0
    async with Engine(loaded("qwen3")) as engine:
        for seed in range(6):
            text, reason = await text_of(engine, request(constraint, seed=seed))
            if reason == "stop":
                whole += 1
                value = json.loads(text)
                assert sorted(value) == ["age", "kind"]
                assert type(value["age"]) is int
                assert value["kind"] in ("fox", "dog")

    assert whole


async def test_a_form_outlives_preemption_and_neighbours(loaded: Load, grammars: Grammars) -> None:
    constraint = asked(grammars, guided_regex="([a-f]{4}-){9}end")
    per_token = 2 * 3 * 32 * 4
    tight = EngineLimits(max_batch=4, kv_bytes=per_token * 16 * 12, max_context=160)
    requests = [request(constraint, seed=n, id=str(n)) for n in range(4)]
    async with Engine(loaded("llama")) as engine:
        alone = [await text_of(engine, r) for r in requests]
    async with Engine(loaded("llama"), tight) as engine:
        generations = [engine.submit(r) for r in requests]
        together = ["".join([t.text async for t in g]) for g in generations]
        preempted = engine.stats().preempted

    assert together == [text for text, _ in alone]
    assert all(re.fullmatch("([a-f]{4}-){9}end", text) for text in together)
    assert preempted


async def test_what_the_model_thinks_is_reported_unmasked(loaded: Load, grammars: Grammars) -> None:
    constraint = asked(grammars, guided_regex="the quick [0-9]")
    async with Engine(loaded("llama")) as engine:
        free, _ = await run(engine, GenerationRequest("a", prompt_of(0, 9), 1, top_logprobs=20))
        bound, _ = await run(engine, request(constraint, top_logprobs=20, ignore_end=True))

    assert dict(bound[0].top) == pytest.approx(dict(free[0].top))
    assert bound[0].entropy == pytest.approx(free[0].entropy)
    assert not bound[-1].is_forced


async def test_tokens_without_a_choice_are_marked(loaded: Load, grammars: Grammars) -> None:
    only = asked(grammars, guided_regex="\x01\x02")
    async with Engine(loaded("llama")) as engine:
        tokens, _ = await run(engine, request(only))

    assert [t.is_forced for t in tokens] == [True, True]


def test_masks_of_a_proposal_change_nothing(grammars: Grammars) -> None:
    progress = asked(grammars, guided_regex="ab[cd]").begin()
    a, b, c, x = (grammars.tokenizer.encode(t, add_special=False)[0] for t in "abcx")
    first = progress.mask()

    assert len(progress.masks([a, b, c])) == 4
    assert len(progress.masks([a, x, c])) == 2
    assert progress.masks([x])[0] == first == progress.mask()
    for token in (a, b, c):
        progress.accept(token)
    assert progress.is_complete


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_regex": 5}, "guided_regex"),
        ({"guided_regex": "x" * 200_000}, "guided_regex"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_choice": ["x"] * 1001}, "guided_choice"),
        ({"guided_json": "{}"}, "guided_json"),
        ({"guided_json": {"type": "nonsense"}}, "guided_json"),
        ({"guided_json": {"$ref": "http://evil.example/x"}}, "guided_json"),
        ({"guided_json": {"$ref": "#"}}, "guided_json"),
        ({"guided_json": False}, "guided_json"),
        ({"guided_json": {"const": "\ud800"}}, "guided_json"),
        ({"guided_regex": "\ud800"}, "guided_regex"),
        ({"guided_choice": ["\ud800"]}, "guided_choice"),
        ({"guided_grammar": 'start: "\ud800"'}, "guided_grammar"),
        ({"guided_json": {"enum": ["x" * 100_000]}}, "guided_json"),
        ({"guided_json": {"not": json.loads('{"not":' * 99 + "{}" + "}" * 99)}}, "guided_json"),
        ({"guided_json": True, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "regex"}}, "response_format.pattern"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_forms_that_cannot_be_followed_are_named(
    grammars: Grammars, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(grammars, **fields)

    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "((a{1,1000}){1,1000}){1,1000}b"},
        {"guided_regex": "(.*a){200}.{500}"},
        {"guided_json": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}},
        {"guided_json": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}}},
        {"guided_grammar": 'start: start start start | "a" start | ""'},
        {"guided_json": {"anyOf": [{"properties": {f"p{n}": {}}} for n in range(400)]}},
    ],
)
async def test_forms_that_explode_end_one_request_at_most(
    loaded: Load, grammars: Grammars, fields: dict[str, Any]
) -> None:
    async with Engine(loaded("llama")) as engine:
        try:
            generation = engine.submit(request(asked(grammars, **fields)))
        except InvalidRequest:
            return
        tokens = []
        with contextlib.suppress(GenerationFailed):
            tokens = [t async for t in generation]
        after, _ = await run(engine, request(None, id="b"))

    assert len(tokens) <= 120
    assert after


async def test_a_form_that_becomes_too_much_work_is_the_clients_to_change(
    loaded: Load, grammars: Grammars
) -> None:
    inner = {"type": "object", "properties": {"k": {"$ref": "#/$defs/a"}}, "required": ["k"]}
    endless = {"$defs": {"a": inner}, "$ref": "#/$defs/a"}
    async with Engine(loaded("llama")) as engine:
        with pytest.raises(FormNotFollowed, match="Too many items") as caught:
            await run(engine, request(asked(grammars, guided_json=endless)))
        pages = engine.stats().pages_used

    assert caught.value.status == 400
    assert pages == 0


@pytest.mark.parametrize(
    ("grammar", "is_risky"),
    [
        ("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", False),
        ('{"minLength": 1, "maxLength": 2000}', False),
        ("a{10001}", True),
        ("((a{100}){100}){100}", True),
        ("(?x) a{ 20000 }", True),
        ("(?i-x)a", True),
        ('{"type": "string", "pattern": "^a*$", "minLength": 1000000}', True),
        ('{"multipleOf": 7}', True),
        ("a{" + "9" * 5000 + "}", True),
    ],
)
def test_forms_that_may_grow_are_told_from_those_that_cannot(grammar: str, is_risky: bool) -> None:
    assert needs_trial(grammar) is is_risky


def test_a_form_that_grows_beyond_all_memory_is_refused(grammars: Grammars) -> None:
    lines = [f"A{n + 1}: A{n} A{n}" for n in range(24)]
    doubled = "\n".join(["start: A24", 'A0: "a"', *lines])

    with pytest.raises(InvalidRequest, match="too large once it is written out"):
        asked(grammars, guided_grammar=doubled)


def test_the_same_form_is_compiled_once(grammars: Grammars) -> None:
    assert asked(grammars, guided_json=SCHEMA) is asked(grammars, guided_json=SCHEMA)
    assert asked(grammars, response_format={"type": "text"}) is None


def test_without_the_library_the_refusal_says_what_is_missing(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("llama")
    monkeypatch.setitem(sys.modules, "llguidance", None)

    with pytest.raises(Unsupported, match=r"frugal-gateway\[local\]"):
        asked(Grammars(model.tokenizer, model.end_ids, 320), guided_regex="a")
