"""Making and migrating databases, and refusing those that are not promptab's to touch."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from promptab import StoreError, StoreUnavailableError, StoreVersionError
from promptab.stores import schema
from promptab.stores.migrating import HEAD, VERSION_TABLE, upgrade
from promptab.stores.opening import open_store

MIGRATIONS = Path(schema.__file__).parent / "migrations" / "versions"
OPEN_FILE = Path(__file__).parent / "workers" / "open_file.py"


async def make(path: Path) -> str:
    """Make a store with something in it; return its id."""
    store = await open_store(f"sqlite:///{path}")
    await store.close()
    return store.store_id


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described(database: sa.Engine | sa.Connection) -> dict[str, Any]:
    """Return all that a database says of its tables, in a form that can be compared."""
    inspector = sa.inspect(database)
    tables: dict[str, Any] = {}
    for table in sorted(inspector.get_table_names()):
        tables[table] = {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": by_name(inspector.get_foreign_keys(table)),
            "unique": by_name(inspector.get_unique_constraints(table)),
            "indexes": by_name(inspector.get_indexes(table)),
            "checks": by_name(inspector.get_check_constraints(table)),
        }
    return tables


def by_name(constraints: list[Any]) -> list[str]:
    """Return them as sorted text: the condition of a partial index is an object that equals no other."""
    return sorted(json.dumps(constraint, default=str, sort_keys=True) for constraint in constraints)


@pytest.fixture
def migrated(tmp_path: Path) -> Path:
    """A file that has taken every migration, one after the other."""
    path = tmp_path / "migrated.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    return path


async def test_migrations_build_the_same_tables_as_a_new_store_has(tmp_path: Path, migrated: Path) -> None:
    await make(tmp_path / "new.db")
    by_steps, at_once = (sa.create_engine(f"sqlite:///{path}") for path in (migrated, tmp_path / "new.db"))
    tables = described(at_once)
    assert set(tables) == {*schema.metadata.tables, VERSION_TABLE}
    assert described(by_steps) == tables
    assert rows(by_steps) == rows(at_once)
    by_steps.dispose()
    at_once.dispose()


def rows(database: sa.Engine) -> dict[str, list[Any]]:
    """Return what is in every table but the one that names the store."""
    with database.connect() as connection:
        return {
            name: sorted(connection.execute(sa.text(f"SELECT * FROM {name}")).all())
            for name in sa.inspect(connection).get_table_names()
            if name != schema.store.name
        }


async def test_migrations_write_the_same_tables_word_for_word(tmp_path: Path, migrated: Path) -> None:
    """What inspection does not show (collations, AUTOINCREMENT, ON DELETE) is in the statements themselves."""
    await make(tmp_path / "new.db")
    assert statements(migrated) == statements(tmp_path / "new.db")


@pytest.mark.parametrize("number", range(1, int(HEAD)))
async def test_an_old_store_is_brought_up_to_date_and_stays_itself(tmp_path: Path, number: int) -> None:
    path = tmp_path / "old.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, f"{number:04}")
        named = {"store_id": "of old", "revision": 7, "created_at": datetime.now(UTC)}
        connection.execute(sa.insert(schema.store), named)
    engine.dispose()
    assert await make(path) == "of old"
    await make(tmp_path / "new.db")
    assert statements(path) == statements(tmp_path / "new.db")
    database = sqlite3.connect(path)
    assert database.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(HEAD,)]
    assert database.execute("SELECT store_id, revision FROM promptab_store").fetchall() == [("of old", 7)]
    database.close()


def statements(path: Path) -> dict[str, list[str]]:
    """Return the parts of every CREATE statement, sorted: their order means nothing, and a column that was
    added later stands on the line of the last bracket.
    """
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'sqlite_sequence'"
    ).fetchall()
    connection.close()
    return {name: sorted(parts(" ".join(sql.split()))) for name, sql in rows}


def parts(statement: str) -> list[str]:
    """Split `CREATE TABLE name (a, b(c, d))` at the commas of its outer brackets."""
    head, _, inside = statement.partition("(")
    found, depth, begin = [head.strip()], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter == "(") - (letter == ")")
        if (letter == "," and depth == 0) or depth < 0:
            found.append(inside[begin:place].strip())
            begin = place + 1
    return [*found, inside[begin:].strip()]


def test_head_is_the_newest_migration() -> None:
    numbers = [
        match[1] for path in MIGRATIONS.iterdir() if (match := re.fullmatch(r"m(\d{4})_\w+\.py", path.name))
    ]
    assert max(numbers) == HEAD


def test_migrations_form_one_line() -> None:
    numbers = sorted(path.name[1:5] for path in MIGRATIONS.glob("m*.py"))
    sources = [next(MIGRATIONS.glob(f"m{number}_*.py")).read_text(encoding="utf-8") for number in numbers]
    for number, before, source in zip(numbers, [None, *numbers], sources, strict=False):
        assert f'revision = "{number}"' in source
        assert f"down_revision = {None if before is None else repr(before)}".replace("'", '"') in source


async def test_a_new_database_is_in_wal_mode(tmp_path: Path) -> None:
    await make(tmp_path / "store.db")
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_opening_a_new_or_an_up_to_date_database_does_not_load_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, promptab\n"
        "async def main():\n"
        f"    async with promptab.open('sqlite:///{tmp_path / 'store.db'}') as lab:\n"
        "        await lab.versions.create_version('tone', 'system', 'Be kind.')\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    ]
    assert answers == ["False\n", "False\n"]


async def test_a_newer_database_is_refused_and_its_bytes_stay(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    await make(path)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = digest(path)
    with pytest.raises(StoreVersionError, match=rf"schema 9999 .* up to {HEAD}.*upgrade promptab"):
        await open_store(f"sqlite:///{path}")
    assert digest(path) == before


async def test_another_applications_database_is_refused_and_its_bytes_stay(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.execute("INSERT INTO customers VALUES ('Ada')")
    connection.commit()
    connection.close()
    before = digest(path)
    with pytest.raises(StoreVersionError, match=r"another application .*'customers'"):
        await open_store(f"sqlite:///{path}")
    assert digest(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["foreign.db"]


@pytest.mark.parametrize(
    "content",
    [b"dear diary\n" * 500, b"no", b"SQLite format 3\x00" + b"\xff" * 4_000, b"PK\x03\x04" + bytes(5_000)],
    ids=["text", "two bytes", "header alone", "zip"],
)
async def test_a_file_that_is_no_database_is_refused_and_its_bytes_stay(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await open_store(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_store_whose_name_was_deleted_is_given_another(tmp_path: Path) -> None:
    path = tmp_path / "nameless.db"
    before = await make(path)
    database = sqlite3.connect(path)
    database.execute("DELETE FROM promptab_store")
    database.commit()
    database.close()
    assert await make(path) not in {before, ""}
    await make(tmp_path / "new.db")
    assert statements(path) == statements(tmp_path / "new.db")


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert await make(path) == await make(path)


async def test_a_folder_in_place_of_the_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=re.escape(str(tmp_path))):
        await open_store(f"sqlite:///{tmp_path}")


def overwritten(data: bytes) -> bytes:
    """Damage every page but the first, whose header says that this is a database."""
    return data[:4_096] + b"\xa5" * (len(data) - 4_096)


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_schema(data: bytes) -> bytes:
    """Damage the first page behind the header of 100 bytes: the list of tables."""
    return data[:100] + b"\xa5" * (4_096 - 100) + data[4_096:]


@pytest.mark.parametrize("damage", [overwritten, cut_short, without_schema])
async def test_a_damaged_database_is_a_store_error_that_names_the_file(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "store.db"
    await make(path)
    path.write_bytes(damage(path.read_bytes()))
    before = digest(path)
    with pytest.raises(StoreError, match=r"damaged|not a database") as caught:
        await open_store(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert digest(path) == before


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="promptab-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(path: Path) -> list[str]:
    """Return what the worker says without the rights of root, for whom no file is read-only."""
    done = subprocess.run(
        [sys.executable, str(OPEN_FILE), str(path), "as-nobody"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def test_a_read_only_file_can_be_read_and_refuses_writes_with_the_remedy(open_folder: Path) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    await make(folder / "store.db")
    (folder / "store.db").chmod(0o444)
    opened, read, *refused = as_nobody(folder / "store.db")
    assert (opened, read) == ("opened", "read 0")
    assert len(refused) == 2
    for line in refused:
        assert line.startswith("StoreUnavailableError")
        assert "read-only; check the permissions" in line


async def test_a_file_in_a_read_only_folder_is_unavailable_with_the_remedy(open_folder: Path) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    folder.chmod(0o555)
    [line] = as_nobody(folder / "store.db")
    assert line.startswith("StoreUnavailableError")
    assert "may be written to" in line


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_that_open_a_new_file_at_once_make_one_store(tmp_path: Path, processes: int) -> None:
    def run(_: int) -> str:
        return subprocess.run(
            [sys.executable, str(OPEN_FILE), str(tmp_path / "store.db"), "id"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout

    with ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(run, range(processes)))
    assert len(set(answers)) == 1
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("SELECT count(*) FROM promptab_store").fetchone() == (1,)
    assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(HEAD,)]
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
