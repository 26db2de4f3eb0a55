"""PostgreSQL by its URL: what may be written, what is shown of it, and making and migrating databases."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import promptab
from promptab import (
    InvalidInputError,
    MissingExtraError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
)
from promptab.stores import schema
from promptab.stores.migrating import HEAD, VERSION_TABLE, upgrade
from promptab.stores.opening import open_store, shown_location
from tests.command_line import Shell
from tests.postgres import Databases, fetched
from tests.processes import environment
from tests.test_migrations import described

OPEN_STORE = Path(__file__).parent / "workers" / "open_store.py"


@pytest.fixture
def empty_url(postgres: Databases) -> Iterator[str]:
    """The URL of a database without tables."""
    url = postgres.empty()
    yield url
    postgres.drop(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:hunter2@db.example.org/promptab", "postgresql://ada@db.example.org/promptab"),
        (
            "postgres://ada:hunter2@db.example.org:5433/promptab",
            "postgresql://ada@db.example.org:5433/promptab",
        ),
        ("postgresql://ada:p%40ss%2Fhunter2@db/promptab", "postgresql://ada@db/promptab"),
        ("postgresql://ada:p@ss@hunter2@db/promptab", "postgresql://ada@db/promptab"),
        ("postgresql://db/promptab?user=ada&password=hunter2", "postgresql://db/promptab?user=ada"),
        (
            "postgresql://db/promptab?sslpassword=hunter2&sslmode=require",
            "postgresql://db/promptab?sslmode=require",
        ),
        ("postgresql://db/promptab?Password=hunter2", "postgresql://db/promptab"),
        (
            "postgresql:///promptab?host=/var/run/postgresql",
            "postgresql:///promptab?host=/var/run/postgresql",
        ),
        ("postgresql://ada:@/promptab?host=/tmp/a%20b", "postgresql://ada@/promptab?host=/tmp/a%20b"),
        (
            "postgresql://ada:hunter2@one:5432,two:5433/promptab",
            "postgresql://ada@one:5432,two:5433/promptab",
        ),
        ("postgresql://ada:hunter2@[::1]:5432/promptab", "postgresql://ada@[::1]:5432/promptab"),
        ("postgresql://", "postgresql://"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_location(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:pa/hunter2@localhost/promptab",
        "postgresql://ada:pa#hunter2@localhost/promptab",
        "postgresql://ada:pa?hunter2@localhost/promptab",
        "postgresql://ada:pa[hunter2@localhost/promptab",
        "postgresql://ada:hunter2/promptab",
        "postgresql://ada:hunter2",
        "postgresql://localhost/promptab?hunter2",
        "postgresql://localhost/promptab%0Ahunter2",
        "postgresql://localhost/promptab/hunter2",
        "postgresql+asyncpg://ada:hunter2@localhost/promptab",
    ],
)
async def test_a_url_that_is_not_well_formed_is_refused_without_showing_any_of_it(url: str) -> None:
    """A character that was not escaped makes the rest of a password a path, or a port."""
    with pytest.raises(InvalidInputError, match=r"postgresql://user:password@host") as caught:
        await open_store(url)
    assert caught.value.field == "url"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="statement_timeout"):
        await open_store("postgresql://localhost/promptab?statement_timeout=soon")


def test_without_the_driver_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "asyncpg.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    code = (
        "import asyncio, promptab\n"
        "try:\n"
        "    asyncio.run(promptab.open('postgresql://localhost/promptab').__aenter__())\n"
        "except promptab.MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment(PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[1]}"),
    )
    assert "pip install 'promptab[postgres]'" in done.stdout
    assert issubclass(MissingExtraError, ImportError)


async def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_hidden() -> None:
    with pytest.raises(StoreUnavailableError, match=r"postgresql://ada@127\.0\.0\.1:1/promptab") as caught:
        await open_store("postgresql://ada:hunter2@127.0.0.1:1/promptab")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


async def test_a_folder_without_a_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="server is there"):
        await open_store(f"postgresql://ada@/promptab?host={tmp_path}")


async def test_a_database_that_does_not_exist_is_an_error_that_says_how_to_make_it(postgres_url: str) -> None:
    absent = urlsplit(postgres_url)._replace(path="/promptab_absent").geturl()
    with pytest.raises(StoreError, match="createdb") as caught:
        await open_store(absent)
    assert not isinstance(caught.value, StoreUnavailableError)


async def test_an_option_that_the_server_does_not_know_is_an_error_that_says_so(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="option that the server does not know"):
        await open_store(f"{postgres_url}&no_such_setting=1")


async def test_the_store_shows_where_it_is_without_the_password(postgres_url: str) -> None:
    secret = postgres_url.replace("postgres:@", "postgres:hunter2@")
    async with promptab.open(secret) as lab:
        assert lab.store.url == shown_location(postgres_url)
        assert lab.store.shared


async def test_an_empty_database_becomes_a_store_and_stays_the_same_one(empty_url: str) -> None:
    store = await open_store(empty_url)
    await store.close()
    again = await open_store(empty_url)
    await again.close()
    assert again.store_id == store.store_id


async def test_another_applications_tables_in_the_same_database_are_left_alone(empty_url: str) -> None:
    fetched(empty_url, "CREATE TABLE customers (name text)")
    fetched(empty_url, "INSERT INTO customers VALUES ('Ada')")
    store = await open_store(empty_url)
    await store.close()
    assert [row["name"] for row in fetched(empty_url, "SELECT name FROM customers")] == ["Ada"]


async def test_two_schemas_of_one_database_are_two_stores(empty_url: str) -> None:
    for name in ("one", "two"):
        fetched(empty_url, f"CREATE SCHEMA {name}")
    async with (
        promptab.open(f"{empty_url}&search_path=one") as one,
        promptab.open(f"{empty_url}&search_path=two") as other,
    ):
        assert one.store.store_id != other.store.store_id
        await one.versions.create_version("tone", "system", "Be kind.")
        assert await other.versions.list_versions() == []


async def test_a_newer_database_is_refused(postgres_url: str) -> None:
    fetched(postgres_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreVersionError, match=rf"schema 9999 .* up to {HEAD}.*upgrade promptab"):
        await open_store(postgres_url)


async def test_migrations_build_the_same_tables_as_a_new_store_has(postgres_url: str, empty_url: str) -> None:
    found = []
    for url in (postgres_url, empty_url):
        engine = create_async_engine("postgresql+asyncpg://", async_creator=partial(asyncpg.connect, url))
        async with engine.begin() as connection:
            if url == empty_url:
                await connection.run_sync(upgrade)
            found.append(await connection.run_sync(described))
        await engine.dispose()
    new, migrated = found
    assert set(new) == {*schema.metadata.tables, VERSION_TABLE}
    assert migrated == new


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_that_open_an_empty_database_at_once_make_one_store(empty_url: str, processes: int) -> None:
    def run(_: int) -> str:
        return subprocess.run(
            [sys.executable, str(OPEN_STORE), empty_url],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env=environment(),
        ).stdout

    with ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(run, range(processes)))
    assert len(set(answers)) == 1
    assert fetched(empty_url, "SELECT count(*) AS stores FROM promptab_store")[0]["stores"] == 1
    assert [row[0] for row in fetched(empty_url, f"SELECT version_num FROM {VERSION_TABLE}")] == [HEAD]


def test_tasks_that_open_an_empty_database_at_once_make_one_store(empty_url: str) -> None:
    async def main() -> set[str]:
        stores = await asyncio.gather(*(open_store(empty_url) for _ in range(6)))
        await asyncio.gather(*(store.close() for store in stores))
        return {store.store_id for store in stores}

    assert len(asyncio.run(main())) == 1


def test_commands_work_on_a_url_with_a_password_and_never_show_it(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, monkeypatch)
    monkeypatch.setenv("PROMPTAB_URL", postgres_url.replace("postgres:@", "postgres:hunter2@"))
    shell.make_greeting()
    commands = (
        ("promote", "system/greeting@1.1.0", "--reason", "tried"),
        ("rollback", "system/greeting", "--to", "1.0.0"),
        ("list",),
        ("show", "system/greeting"),
        ("doctor",),
        ("doctor", "--json"),
        ("init", "--url", postgres_url.replace("postgres:@", "postgres:hunter2@")),
    )
    for words in commands:
        said = shell.run(*words)
        assert "hunter2" not in said.out + said.err, words
    diagnosis = shell.json("doctor")
    assert diagnosis["url"] == shown_location(postgres_url)
    # the tests' server does not wait for its disk, and doctor says so
    assert [check["name"] for check in diagnosis["checks"] if check["status"] != "ok"] in ([], ["commits"])


@pytest.mark.parametrize(
    ("url", "code", "kind", "said"),
    [
        (
            "postgrsql://ada:hunter2@localhost/promptab",
            5,
            "invalid_input",
            "not a URL of SQLite or PostgreSQL",
        ),
        ("postgresql://ada:hun/ter2@localhost/promptab", 5, "invalid_input", "%XX for special characters"),
        (
            "postgresql://ada:hunter2@127.0.0.1:1/promptab",
            7,
            "store_unavailable",
            "check that the server is there",
        ),
        ("postgresql://ada:hunter2@nowhere.invalid/promptab", 7, "store_unavailable", "nowhere.invalid"),
    ],
    ids=["misspelled", "not escaped", "away", "no such host"],
)
def test_commands_say_what_is_wrong_with_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, code: int, kind: str, said: str
) -> None:
    shell = Shell(tmp_path, monkeypatch)
    monkeypatch.setenv("PROMPTAB_URL", url)
    for words in (("list",), ("record", "-", "--success"), ("doctor",)):
        answer = shell.run(*words)
        assert answer.code == code, answer
        assert said in answer.err
        assert "ter2" not in answer.out + answer.err
        assert "Traceback" not in answer.err
    assert json.loads(shell.run("list", "--json").err)["error"]["kind"] == kind
