from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.loader import MAX_FILE, PolicyError, load_policy, parse_policy
from tests.policies.support import SMALL, load, problems, routes, told

DEMO = (Path(__file__).parents[2] / "policies" / "demo.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 2\nmodels: {a: {provider: local}}", "1:10: version: expected 1, found 2"),
        (SMALL + "server: {port: on}", "7:16: server.port: expected a number, found true"),
        (SMALL + "server: {port: 70000}", "server.port: expected at most 65535, found 70000"),
        (SMALL + "server: {port: x}", "server.port: expected a whole number, found 'x'"),
        (SMALL + "server: {drain: .inf}", "server.drain: expected a duration such as"),
        (SMALL + "server: {drain: 1e999}", "server.drain: expected a finite number"),
        (SMALL + "server: {max_body: 1XB}", "server.max_body: expected a size such as"),
        (SMALL + "server: [a]", "7:9: server: expected a mapping, found a list"),
        (SMALL + "sever: {}", "7:1: sever: unknown key 'sever' (did you mean 'server'?)"),
        (SMALL + "tiers: []", "7:1: tiers: unknown key 'tiers' (known here: version, server"),
        (SMALL + "access: {anonymous: loopbak}", "found 'loopbak' (did you mean 'loopback'?)"),
        (
            SMALL + "access: {keys: [{name: 1, key: k}]}",
            "expected text, found 1 (put it in quotes)",
        ),
        (SMALL + "access: {keys: [{name: a}]}", "access.keys[0]: the key 'key' is missing"),
        ("version: 1\nmodels: {}", "models: expected at least 1 of them, found a mapping"),
        ("version: 1", "1:1: the key 'models' is missing"),
        (
            "version: 1\nmodels: {'a b': {provider: local, checkpoint: x}}",
            "expected letters, digits",
        ),
        (
            routes("  r: {model: tiny, tiers: [tiny]}"),
            "r.tiers: unknown key 'tiers' (it belongs under 'cascade')",
        ),
        (routes("  r: {}"), "7:6: routes.r: a route needs exactly one of: model, cascade"),
        (routes("  r: {cascade: {tiers: []}}"), "routes.r.cascade.tiers: expected at least 1"),
        (
            routes("  r: {model: tiny, cache: {exact: 24h}}"),
            "routes.r.cache.exact: expected a mapping",
        ),
        (routes("  r: {model: tiny, rules: [{when: {}}]}"), "rules[0]: a rule needs one of: model"),
        (
            routes("  r: {model: tiny, rules: [{when: {tag: x}, model: tiny, tiers: [mini]}]}"),
            "not both",
        ),
        (SMALL + "a" * 500 + ": 1", f"{'a' * 77}...: unknown key '{'a' * 77}...'"),
        (SMALL + f"server: {{port: {'a' * 500}}}", f"found '{'a' * 77}...'"),
        (SMALL + r'"\e[2J\u202e": 1', r"unknown key '\x1b[2J\u202e'"),
        (SMALL + r'server: {host: "a\0b"}', "7:16: server.host: expected characters, found the"),
        (SMALL + r'"\ud800": 1', "expected characters, found the escape of none"),
        ("- a list", "1:1: expected a mapping (version: 1, ...), found a list"),
        ("just text", "expected a mapping (version: 1, ...), found 'just text'"),
    ],
)
def test_a_fault_is_told_with_place_path_and_hint(text, line):
    assert any(line in each for each in told(text)), told(text)


def test_every_fault_is_told_at_once_in_the_order_of_the_file():
    text = """
version: 1
acces: {}
limits: {requests_per_minute: 0}
access:
  keys:
    - {name: ci, key: "${NOPE}"}
    - {name: 5, key: [sk-secret]}
models:
  tiny: {provider: local, checkpoint: demo/tiny, quantisation: int8}
  m1: {provider: vlm}
routes:
  auto:
    cascade: {tiers: [tiny, tinny], reference: m2, control: 0.9}
    timeouts: {total: -1}
  auto: {model: tiny}
"""
    found = problems(text)

    assert [problem.path for problem in found] == [
        "acces",
        "limits.requests_per_minute",
        "access.keys[0].key",
        "access.keys[1].name",
        "access.keys[1].key",
        "models.tiny.quantisation",
        "models.m1.provider",
        "routes.auto.cascade.tiers[1]",
        "routes.auto.cascade.reference",
        "routes.auto.cascade.control",
        "routes.auto.timeouts.total",
        "routes.auto",
    ]
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


@pytest.mark.parametrize(
    "broken",
    [
        "{connect: '${SECRET}'}",
        "{connect: ['${SECRET}']}",
        "{'${SECRET}': 1}",
        "'x${SECRET}'",
    ],
)
def test_secret_of_the_environment_is_never_told(broken):
    text = routes(f"  r: {{model: '${{SECRET}}', timeouts: {broken}}}")

    found = "\n".join(told(text, {"SECRET": "hunter2secret"}))

    assert found
    assert "hunter2secret" not in found


def test_secret_in_the_file_is_never_told():
    text = (
        SMALL
        + "access: {keys: [{name: a, key: [sk-topsecret]}, {name: b, key: {x: sk-topsecret}}]}"
    )

    assert len(told(text)) == 2
    assert "topsecret" not in "".join(told(text))


def test_numbers_may_come_from_the_environment():
    text = SMALL + "server: {port: '${PORT}', drain: '${DRAIN}'}"

    policy = load(text, {"PORT": "8080", "DRAIN": "5"})

    assert policy.server.port == 8080
    assert policy.server.drain == 5.0


def test_file_is_read_with_its_folder_as_the_start_of_paths(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "ca.pem").touch()
    (tmp_path / "p.yaml").write_text(
        "version: 1\n"
        "models:\n"
        "  a: {provider: local, checkpoint: weights}\n"
        "  b: {provider: local, checkpoint: ./weights}\n"
        "  c: {provider: local, checkpoint: org/name}\n"
        "  d: {provider: local, checkpoint: demo/tiny}\n"
        "  e: {provider: vllm, base_url: https://h/v1, tls: {ca_file: ca.pem}}\n"
    )

    models = load_policy(tmp_path / "p.yaml", {}).models

    found = [models[name].checkpoint for name in "abcd"]
    assert found == [str(tmp_path / "weights")] * 2 + ["org/name", "demo/tiny"]
    assert models["e"].tls.ca_file == tmp_path / "ca.pem"


def test_home_of_an_unknown_user_is_refused(tmp_path):
    text = SMALL.replace("demo/tiny", "~no-such-user-here/x")

    assert "the home folder of an unknown user" in told(text, folder=tmp_path)[0]


def test_byte_order_mark_is_allowed(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())

    assert load_policy(tmp_path / "p.yaml", {}).version == 1


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"version: 1\nx: \xff", ":2:1: expected UTF-8 text, found other bytes"),
        (b"#" * (MAX_FILE + 1), f"expected at most {MAX_FILE} bytes, found more"),
        (b"", ":1:1: the file is empty"),
        (b"version: 1\0", "found U+0000"),
    ],
)
def test_file_that_is_no_policy_is_refused(tmp_path, raw, fault):
    (tmp_path / "p.yaml").write_bytes(raw)

    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "p.yaml", {})

    assert fault in str(caught.value)


def test_text_over_the_limit_is_refused():
    with pytest.raises(PolicyError, match="found more"):
        parse_policy("#" * (MAX_FILE + 1), name="p.yaml", env={})


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_policy_error(text):
    assert problems(text)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(DEMO)), cut=st.integers(0, 30), put=st.text(max_size=8))
def test_any_edit_of_a_policy_gives_a_policy_or_a_policy_error(at, cut, put):
    text = DEMO[:at] + put + DEMO[at + cut :]

    found = problems(text, {"FRUGAL_DEMO_UPSTREAM": "http://h:1/v1"})

    assert all(problem.message for problem in found)


_KEYS = st.one_of(
    st.sampled_from(["models", "routes", "a", "b", "provider", "local", "price", "cascade"]),
    st.sampled_from(["tiers", "rules", "when", "confidence", "cache", "exact", "semantic"]),
    st.sampled_from(["access", "keys", "key", "fallback", "server"]),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_KEYS, below, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(_JSON)
def test_any_shape_of_data_is_a_policy_or_a_policy_error(data):
    import yaml

    assert problems(yaml.safe_dump({"version": 1, "models": data, "routes": data}))
