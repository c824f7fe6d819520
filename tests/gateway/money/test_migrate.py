from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, create_engine

from gateway.money import migrate
from gateway.money.errors import LedgerError, LedgerRefused
from gateway.money.migrate import HEAD, KNOWN, migrate_sqlite
from gateway.money.rollup import Rollup
from gateway.money.schema import metadata
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a folder & more" / "ledger%20.db"


@pytest.fixture(autouse=True)
def _folder(path):
    path.parent.mkdir()


def _run(path, sql):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_migrations_arrive_at_the_tables_that_reports_read(path):
    migrate_sqlite(path)
    engine = create_engine(URL.create("sqlite", database=str(path)))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


def test_tables_are_strict_so_that_money_stays_whole(path):
    migrate_sqlite(path)
    with closing(sqlite3.connect(path)) as connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))

    assert {name for name, sql in made.items() if "STRICT" not in sql} == {"alembic_version"}


def test_the_known_revisions_are_those_on_disk():
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))
    script = ScriptDirectory.from_config(config)

    assert script.get_current_head() == HEAD
    assert {revision.revision for revision in script.walk_revisions()} == KNOWN


def test_migrating_again_changes_nothing(path):
    migrate_sqlite(path)
    before = path.read_bytes()
    migrate_sqlite(path)

    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_with_what_to_do(path):
    migrate_sqlite(path)
    _run(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerRefused, match=r"'9999' is newer .* upgrade"):
        migrate_sqlite(path)


def test_a_database_of_somebody_else_is_refused(path):
    _run(path, "CREATE TABLE songs (name TEXT)")
    with pytest.raises(LedgerRefused, match="something else"):
        migrate_sqlite(path)


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        migrate_sqlite(path)


def test_processes_that_start_together_migrate_once(path):
    code = (
        "import sys; from pathlib import Path; "
        "from gateway.money.migrate import migrate_sqlite; migrate_sqlite(Path(sys.argv[1]))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]

    assert [process.wait(120) for process in started] == [0, 0, 0]
    migrate_sqlite(path)


def test_an_up_to_date_ledger_starts_without_the_migration_tools(path):
    migrate_sqlite(path)
    code = (
        "import sys; from pathlib import Path; from gateway.money.ledger import ledger_at; "
        "from gateway.money.migrate import migrate_sqlite; migrate_sqlite(Path(sys.argv[1])); "
        "heavy = {'alembic', 'sqlalchemy', 'genai_prices'} & set(sys.modules); sys.exit(len(heavy))"
    )

    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=120).returncode == 0


def _moved(path, move, to):
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))
    engine = create_engine(URL.create("sqlite", database=str(path)))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, to)
    engine.dispose()


def test_sums_of_calls_outlive_being_split_by_service_tier_and_put_together_again(path):
    row = (5, "t", "k", "auto", "[]", "mini", "openai", "serve", 0, *range(15))
    _moved(path, command.upgrade, "0005")
    _run(path, f"INSERT INTO rollup_call VALUES {row}")
    migrate_sqlite(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        (after,) = connection.execute("SELECT * FROM rollup_call").fetchall()
        flex = (*after[:8], "flex", *after[9:])
        connection.execute(f"INSERT INTO rollup_call VALUES {flex}")
    _moved(path, command.downgrade, "0005")
    with closing(sqlite3.connect(path)) as connection:
        (before,) = connection.execute("SELECT * FROM rollup_call").fetchall()

    assert after[:10] == (*row[:8], "", 0)
    assert (after[10:19], after[19], after[20:]) == (row[9:18], 0, row[18:])
    assert before == (*row[:9], *(2 * value for value in row[9:]))


def test_sums_by_one_thing_are_filled_from_what_a_ledger_of_before_knows(path):
    store = SqliteStore(path)
    store.open()
    for number in range(40):
        line = entry(
            f"r{number:02}",
            started_at_us=1_795_000_000_000_000 + number * 2_000_000_000,
            state=("settled", "failed", "abandoned")[number % 3],
            cache=("miss", "exact", "semantic")[number % 5 % 3],
            model=("mini", "large")[number % 2],
            tags=((), ("batch",))[number % 2],
            latency_us=7 ** (number % 11),
            ttft_us=None if number % 4 else number,
        )
        store.commit([line], [attempt(line.request_id, usage=Usage(input=number, compute_s=1.5))])
    store.close()
    Rollup(path, at_once=30).step()
    before = _summed(path)
    _moved(path, command.downgrade, "0006")
    migrate_sqlite(path)

    assert _summed(path) == before
    assert [len(rows) > 10 for rows in before] == [True, True]


def test_what_nobody_reported_is_counted_at_its_most_in_a_ledger_of_before(path):
    store = SqliteStore(path)
    store.open()
    for number in range(40):
        line = entry(
            f"r{number:02}",
            started_at_us=1_795_000_000_000_000 + number * 2_000_000_000,
            model=("mini", "large")[number % 2],
            cost_nano_usd=number,
            upper_nano_usd=number * 100,
            estimated=number % 3 > 0,
            error=(None, None, "interrupted")[number % 3],
            state="abandoned" if number % 12 == 1 else "failed",
        )
        store.commit([line], [])
    store.close()
    Rollup(path, at_once=30).step()
    after, wanted = _summed(path, "rollup", "rollup_by"), _unsure(path)
    _moved(path, command.downgrade, "0009")
    before = _unsure(path)
    migrate_sqlite(path)

    assert _summed(path, "rollup", "rollup_by") == after
    assert wanted == sum(number * 99 for number in range(30) if number % 3 and number % 12 != 1)
    assert before == sum(number * 99 for number in range(30) if number % 3 == 2)


def _unsure(path):
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT sum(unsure_nano_usd) FROM rollup").fetchone()
        return found


def _summed(path, *tables):
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5").fetchall()
            for table in tables or ("rollup_by", "rollup_latency")
        ]
