"""Fixtures: stores of every kind, a lab with its managers on one, a clock that tests move, and the shared data."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from promptab import ABTestManager, Lab, MetricsCollector, VersionManager
from promptab.stores.base import Store
from promptab.stores.opening import open_store, sqlite_path
from tests.clock import SettableClock
from tests.postgres import Databases, assert_indexes_agree, databases

# how long an example takes says how busy the machine is
settings.register_profile("promptab", deadline=None)
settings.load_profile("promptab")

SHARED_DIR = Path(__file__).parents[2] / "shared"
REQUIRE_SHARED = "PROMPTAB_REQUIRE_SHARED"


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: a quarter of the time goes by in waiting for other processes, disks and clocks."""
    return (os.cpu_count() or 1) + 1


def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new store of the kind that the fixture's parameter says: file, memory or postgres."""
    match request.param:
        case "file":
            return f"sqlite:///{tmp_path / 'store.db'}"
        case "memory":
            return "sqlite:///:memory:"
        case _:
            return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["file", "memory"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store; a test runs once for every kind and never asks which one it has.

    What promptab does with a store is tried on PostgreSQL by the tests of the contract, and where databases differ.
    """
    return url_of(request, tmp_path)


@pytest.fixture(params=["file", "postgres"])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store that outlives its connection, so that it can be opened again and by other processes."""
    return url_of(request, tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """The PostgreSQL server that the tests of this process share."""
    with databases(required=os.environ.get(REQUIRE_SHARED) == "1") as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Databases) -> Iterator[str]:
    """The URL of a new database with promptab's tables; by its end everybody has to have hung up."""
    url = postgres.new()
    yield url
    postgres.drop(url)


@pytest.fixture
def assert_whole() -> Callable[[str], None]:
    """Ask the database behind a `lasting_url` itself whether it is undamaged."""

    def check(url: str) -> None:
        path = sqlite_path(url)
        if path is None:
            assert_indexes_agree(url)
            return
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()

    return check


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store of every kind in turn."""
    opened = await open_store(store_url)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def lab(store: Store, clock: SettableClock) -> Lab:
    """A lab on a store of every kind in turn, telling the time by `clock`."""
    return Lab(store, clock=clock)


@pytest.fixture
def versions(lab: Lab) -> VersionManager:
    return lab.versions


@pytest.fixture
def experiments(lab: Lab) -> ABTestManager:
    return lab.experiments


@pytest.fixture
def metrics(lab: Lab) -> MetricsCollector:
    return lab.metrics


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recorded data beside the checkout, which not every machine has."""
    if SHARED_DIR.is_dir():
        return SHARED_DIR
    if os.environ.get(REQUIRE_SHARED) == "1":
        pytest.fail(f"{REQUIRE_SHARED}=1, but there is no {SHARED_DIR}")
    pytest.skip(f"the recorded data is not here: there is no {SHARED_DIR}")
