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
