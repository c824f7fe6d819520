"""Where state is kept, and how long answers are."""

from __future__ import annotations

import json

import pytest

from policies.show import masked
from tests.policies.support import SMALL, load, problems, routes


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:secret@cache:6379/1",
        "rediss://user:secret@cache:6380/0",
        "unix:///run/redis.sock",
    ],
)
def test_a_redis_is_named_by_its_url_and_never_shown(url):
    policy = load(SMALL + f'storage: {{redis: "{url}"}}')

    assert policy.storage.redis.get_secret_value() == url
    assert masked(policy)["storage"] == {"redis": "***"}
    assert url not in f"{policy!r} {json.dumps(masked(policy))}"


def test_the_url_may_come_from_the_environment():
    policy = load(SMALL + "storage: {redis: '${REDIS_URL}'}", env={"REDIS_URL": "redis://a:1/0"})

    assert policy.storage.redis.get_secret_value() == "redis://a:1/0"


def test_without_a_redis_nothing_is_shared():
    assert load(SMALL).storage.redis is None


@pytest.mark.parametrize(
    "url", ["http://cache:6379", "cache:6379", "redis://", "redis://:secret@cache:port", "''"]
)
def test_what_is_no_redis_is_refused_without_telling_it(url):
    (problem,) = problems(SMALL + f"storage: {{redis: {url!r}}}")

    assert problem.path == "storage.redis"
    assert "expected redis://" in problem.message
    assert "secret" not in str(problem)


def test_answers_may_be_served_stale_for_a_while():
    text = routes("  r: {model: tiny, cache: {exact: {ttl: 1h, stale: 5m}}}")

    assert load(text).routes["r"].cache.exact.stale == 300.0
    assert load(text.replace(", stale: 5m", "")).routes["r"].cache.exact.stale == 0.0
    assert load(text).revision("r") == load(text.replace("5m", "9m")).revision("r")


def test_a_time_below_zero_is_refused():
    (problem,) = problems(routes("  r: {model: tiny, cache: {exact: {stale: -1}}}"))

    assert problem.path == "routes.r.cache.exact.stale"


def test_budgets_may_be_shared_through_postgresql_and_its_password_is_never_shown():
    policy = load(SMALL + "storage: {limits: 'postgresql://u:secret@db/x'}")

    assert policy.storage.limits == "postgresql://u:secret@db/x"
    assert masked(policy)["storage"] == {"limits": "postgresql://u:***@db/x"}
    assert "secret" not in repr(policy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: 'redis://a'", "expected postgresql://"),
        ("limits: 'postgresql://db/x', redis: 'redis://a:1'", "found both"),
        ("retention: {entries: 5m}", "at least 3600"),
        ("spool: {max_entries: 0}", "at least 1"),
    ],
)
def test_what_cannot_be_kept_so_is_refused(text, message):
    (problem,) = problems(SMALL + f"storage: {{{text}}}")

    assert problem.path.startswith("storage")
    assert message in problem.message


def test_requests_may_be_let_go_after_a_while():
    assert load(SMALL + "storage: {retention: {entries: 90d}}").storage.retention.entries == 7776000
    assert load(SMALL).storage.retention.entries is None


def test_vectors_may_stand_in_postgresql_and_its_url_is_never_shown():
    url = "postgresql://frugal:secret@db/vectors"
    policy = load(SMALL + f"storage: {{semantic_index: '{url}'}}")

    assert policy.storage.semantic_index.get_secret_value() == url
    assert "secret" not in f"{policy!r} {json.dumps(masked(policy))}"
    for text in (SMALL, SMALL + "storage: {semantic_index: faiss}"):
        assert load(text).storage.semantic_index.get_secret_value() == "faiss"


def test_an_index_of_another_kind_is_refused_without_telling_it():
    found = problems(SMALL + "storage: {semantic_index: 'mysql://root:secret@db/x'}")

    assert found
    assert all(problem.path.startswith("storage.semantic_index") for problem in found)
    assert "secret" not in " ".join(map(str, found))
