from __future__ import annotations

import copy

from gateway.providers.messages.breakpoints import add_breakpoints
from gateway.providers.messages.models import Traits
from gateway.providers.messages.request import messages_request
from gateway.providers.prefixes import CacheRates, PrefixMemory

RULES = {"role": "system", "content": "Be kind. " * 600}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d" * 5000}}]
MARK = {"type": "ephemeral"}


def memory_of():
    return PrefixMemory(CacheRates(), least_tokens=1024)


def asked(*messages, tools=TOOLS, **members):
    body = {"model": "m", "messages": list(messages), "tools": tools, **members}
    return messages_request(body, Traits(), None)


def user(text):
    return {"role": "user", "content": text}


def placed(memory, now, *messages, tenant="a", **members):
    """Return where breakpoints stand: tools, system, or the number of a turn."""
    made = asked(*messages, **members)
    add_breakpoints(made, memory, tenant, now)
    found = {}
    if "tools" in made and (mark := made["tools"][-1].get("cache_control")):
        found["tools"] = mark
    if "system" in made and (mark := made["system"][-1].get("cache_control")):
        found["system"] = mark
    for index, turn in enumerate(made["messages"]):
        if mark := turn["content"][-1].get("cache_control"):
            found[index] = mark
    return found


def test_tools_and_system_prompt_are_marked_once_they_come_again():
    memory = memory_of()

    assert placed(memory, 0.0, RULES, user("1")) == {}
    assert placed(memory, 9.0, RULES, user("2")) == {"tools": MARK, "system": MARK}
    assert placed(memory, 18.0, RULES, user("3"), tenant="b") == {}


def test_a_conversation_is_marked_at_its_end_and_where_it_was_left():
    memory = memory_of()
    said = [RULES]
    for count in range(8):
        said += [user(f"{count}"), {"role": "assistant", "content": "so"}]
        found = placed(memory, count * 10.0, *said[:-1])

    assert found == {"tools": MARK, "system": MARK, 12: MARK, 14: MARK}


def test_another_choice_of_tools_is_another_prefix_of_turns_alone():
    memory = memory_of()
    for count in range(8):
        placed(memory, count * 10.0, RULES, user("same"))
    same = placed(memory, 100.0, RULES, user("same"))
    other = placed(memory, 101.0, RULES, user("same"), tool_choice="required")

    assert same.keys() == {"tools", "system", 0}
    assert {"tools", "system"} >= other.keys() - {0}


def test_an_hour_is_said_where_it_is_worth_it():
    memory = memory_of()
    for count in range(9):
        found = placed(memory, count * 1800.0, RULES, user(f"{count}"))

    assert found["system"] == {"type": "ephemeral", "ttl": "1h"}


def test_a_client_that_marks_its_own_gets_no_others():
    memory = memory_of()
    own = {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}
    for count in range(5):
        found = placed(memory, count * 10.0, RULES, own)

    assert found == {0: MARK}
    assert placed(memory, 60.0, RULES, user("x"), cache_control=MARK) == {}


def test_a_clients_mark_within_a_result_counts_as_its_own():
    memory = memory_of()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    inner = [{"type": "text", "text": "x", "cache_control": MARK}]
    said = [RULES, user("1"), {"role": "assistant", "tool_calls": [call]}]
    said.append({"role": "tool", "tool_call_id": "c", "content": inner})
    for count in range(5):
        found = placed(memory, count * 10.0, *said)

    assert found == {}


def test_short_prompts_stay_as_they_are():
    memory = memory_of()
    for count in range(5):
        assert placed(memory, float(count), user("hi"), tools=None) == {}


def test_the_clients_own_request_is_left_as_it_is():
    memory = memory_of()
    body = {"model": "m", "messages": [RULES, user("1")], "tools": TOOLS}
    before = copy.deepcopy(body)
    for count in range(4):
        made = messages_request(body, Traits(), None)
        add_breakpoints(made, memory, "a", count * 10.0)

    assert "cache_control" in made["system"][-1]
    assert body == before
