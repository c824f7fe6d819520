"""Classes of latencies: a database makes out the same ones as the code that reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, bindparam, create_engine, select

from gateway.money.databases import postgres_engine
from gateway.money.views import class_in_sql, class_of, middle_of
from tests.support.postgres_server import PostgresServer

EDGES = sorted(
    {(1 << bits) + off for bits in range(45) for off in (-1, 0, 1)} | {-5, 0, 15, 16, 17}
)
WANTED = select(class_in_sql(bindparam("micros", type_=BigInteger)))


@pytest.fixture(scope="module")
def sqlite():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@given(micros=st.integers(-1, 1 << 42))
def test_sqlite_classes_a_duration_as_the_code_does(sqlite, micros):
    assert sqlite.scalar(WANTED, {"micros": micros}) == class_of(micros)


def test_both_databases_class_the_edges_as_the_code_does(sqlite):
    wanted = [class_of(micros) for micros in EDGES]
    with PostgresServer() as server:
        engine = postgres_engine(server.url())
        with engine.connect() as postgres:
            there = [postgres.scalar(WANTED, {"micros": micros}) for micros in EDGES]
        engine.dispose()

    assert [sqlite.scalar(WANTED, {"micros": micros}) for micros in EDGES] == wanted
    assert there == wanted


@given(micros=st.integers(16, 1 << 40))
def test_the_middle_of_a_class_is_within_a_thirtieth_of_all_in_it(micros):
    assert abs(middle_of(class_of(micros)) / micros - 1) < 1 / 30
