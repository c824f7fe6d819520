from __future__ import annotations

import itertools
from pathlib import Path

from gateway.engines import command_of, engine_name
from policies.schema import Model

PLAIN = {"provider": "local", "checkpoint": "demo/tiny"}
ADAPTED = {**PLAIN, "adapters": "adapters"}


def _arguments(**members):
    return command_of("tiny", Model.model_validate(PLAIN | members)).arguments(Path("s.sock"))


def test_what_a_policy_says_of_a_local_model_reaches_its_engine():
    arguments = _arguments(
        guesses=3,
        draft="demo/tiny",
        adapters="/a",
        long_context=True,
        max_queue=7,
        context=100,
        kv="int8",
    )
    pairs = dict(itertools.pairwise(arguments))

    assert pairs["--guesses"] == "3"
    assert pairs["--draft"] == "demo/tiny"
    assert pairs["--adapters"] == "/a"
    assert pairs["--max-queue"] == "7"
    assert pairs["--max-context"] == "100"
    assert pairs["--kv"] == "int8"
    assert "--long" in arguments


def test_what_it_does_not_say_is_left_to_the_engine():
    arguments = _arguments()

    assert not {"--guesses", "--draft", "--adapters", "--long", "--max-context"} & set(arguments)


def test_models_that_differ_in_their_adapter_alone_share_an_engine():
    base = Model.model_validate(ADAPTED)
    legal = Model.model_validate(ADAPTED | {"model": "legal"})
    other = Model.model_validate(ADAPTED | {"model": "legal", "max_batch": 2})

    assert command_of("base", base) == command_of("law", legal)
    assert command_of("law", legal) != command_of("law", other)
    assert engine_name("base", base) == "tiny (base)"
    assert engine_name("base", Model.model_validate(PLAIN)) == "base"
