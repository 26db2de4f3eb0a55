"""How programs end, and what is in the store afterwards: nothing awaited lost, nothing doubled, nobody hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import promptab
from promptab import Lab, StoreUnavailableError
from promptab.stores.base import Transaction
from promptab.stores.opening import sqlite_path
from tests.contract.records import a_version
from tests.postgres import fetched
from tests.processes import start
from tests.workers.ending import AWAITED, QUEUED, VERSION_ID

HANG_SECONDS = 60.0
"""Past it a process counts as hanging; the machine may be busy with other tests."""

forks = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def stored(url: str) -> list[str]:
    """Return the ids of all events, after a look at the database itself."""
    path = sqlite_path(url)
    if path is None:
        return [row[0].hex() for row in fetched(url, "SELECT event_id FROM promptab_events")]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT lower(hex(event_id)) FROM promptab_events").fetchall()
    return [found for (found,) in rows]


def told(lines: list[str], who: str) -> set[str]:
    return {line.split()[1].replace("-", "") for line in lines if line.startswith(f"{who} ")}


def ended(url: str, how: str, send: signal.Signals | None = None) -> tuple[list[str], int, str]:
    """Run `workers/ending.py`, send the signal when it is ready; return its lines, its status and its errors."""
    worker = start("ending.py", url, how)
    assert worker.stdout is not None
    lines: list[str] = []
    try:
        while not lines or lines[-1] not in {"ready\n", ""}:
            lines.append(worker.stdout.readline())
        if send is not None:
            worker.send_signal(send)
        output, errors = worker.communicate(timeout=HANG_SECONDS)
    finally:
        worker.kill()
        worker.communicate()
    assert lines[-1] == "ready\n", errors
    return [*lines, *output.splitlines()], worker.returncode, errors


@pytest.mark.parametrize(
    ("how", "send", "status"),
    [
        ("closing", None, 0),
        ("forgetting", None, 0),
        ("leaving", None, 3),
        ("leaving_without_closing", None, 3),
        ("failing", None, 1),
        ("waiting", signal.SIGINT, -signal.SIGINT),
        ("served", signal.SIGTERM, 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_recorded_is_written_however_a_program_ends(
    lasting_url: str, how: str, send: signal.Signals | None, status: int
) -> None:
    lines, returned, errors = ended(lasting_url, how, send)
    assert returned == status, errors
    if how not in {"failing", "waiting"}:
        assert errors == ""
    awaited, queued = told(lines, "awaited"), told(lines, "queued")
    assert (len(awaited), len(queued)) == (AWAITED, QUEUED)
    assert sorted(stored(lasting_url)) == sorted(awaited | queued)


def test_what_was_recorded_is_written_to_a_file_when_the_loop_is_left(path: Path) -> None:
    """Of which asyncio complains, too."""
    lines, returned, errors = ended(f"sqlite:///{path}", "in_a_loop_that_is_left")
    assert returned == 0, errors
    assert sorted(stored(f"sqlite:///{path}")) == sorted(told(lines, "awaited") | told(lines, "queued"))


def test_what_a_server_was_not_told_when_the_loop_is_left_is_counted(postgres_url: str) -> None:
    """Nobody can be told anything over a network without a loop."""
    lines, returned, errors = ended(postgres_url, "in_a_loop_that_is_left")
    assert returned == 0, errors
    found = set(stored(postgres_url))
    assert told(lines, "awaited") <= found
    lost = told(lines, "queued") - found
    assert lost
    assert f"{len(lost)} events were never written; close the lab" in errors


@pytest.mark.parametrize(
    ("how", "send", "status"),
    [("waiting", signal.SIGTERM, -signal.SIGTERM), ("killed_in_the_middle", None, -signal.SIGKILL)],
    ids=["terminated", "killed"],
)
def test_a_program_that_is_killed_loses_nothing_awaited_and_doubles_nothing(
    lasting_url: str, how: str, send: signal.Signals | None, status: int
) -> None:
    lines, returned, errors = ended(lasting_url, how, send)
    assert returned == status, errors
    found = stored(lasting_url)
    assert told(lines, "awaited") <= set(found) <= told(lines, "awaited") | told(lines, "queued")
    assert len(found) == len(set(found))


@forks
@pytest.mark.parametrize("how", ["inherited", "opened", "midway"])
def test_both_sides_of_a_fork_go_on_recording(lasting_url: str, how: str) -> None:
    worker = start("forking.py", lasting_url, how, "50")
    try:
        output, errors = worker.communicate(timeout=HANG_SECONDS)
    finally:
        worker.kill()
        worker.communicate()
    lines = output.splitlines()
    assert {line for line in lines if line.endswith("done")} == {"child done", "parent done"}, errors
    said = [line for line in lines if not line.endswith("done")]
    assert len(said) == (250 if how == "midway" else 200)
    assert sorted(stored(lasting_url)) == sorted(told(said, "child") | told(said, "parent"))


@forks
async def test_the_child_of_a_fork_in_the_middle_of_a_transaction_is_told_not_to_use_the_file(
    path: Path,
) -> None:
    async def work(tx: Transaction) -> None:
        await tx.deployments.pointers()
        answers = [in_a_child(lambda: record_in(lab)), in_a_child(lambda: open_and_close(url))]
        assert answers == ["StoreUnavailableError: forked"] * 2

    url = f"sqlite:///{path}"
    async with promptab.open(url) as lab:
        await lab.store.read(work)
        await lab.metrics.record_event(VERSION_ID, True)
    assert len(stored(url)) == 1


@forks
async def test_the_child_of_a_fork_in_the_middle_of_a_transaction_has_connections_of_its_own(
    postgres_url: str,
) -> None:
    async def work(tx: Transaction) -> None:
        await tx.versions.insert(a_version(version="1.0.0"))
        # the parent's transaction goes on, and the child's event is committed beside it
        assert in_a_child(lambda: record_in(lab)) == "done"
        await tx.versions.insert(a_version(version="1.0.1"))

    async with promptab.open(postgres_url) as lab:
        await lab.metrics.record_event(VERSION_ID, True)
        await lab.store.write(work)
        await lab.metrics.record_event(VERSION_ID, True)
        assert len(await lab.versions.list_versions()) == 2
    assert len(stored(postgres_url)) == 3


@forks
async def test_a_store_in_memory_is_not_the_childs() -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        await lab.metrics.record_event(VERSION_ID, True)
        assert in_a_child(lambda: record_in(lab)) == "StoreUnavailableError: a store in memory"
        assert (await lab.metrics.get_metrics(VERSION_ID)).total_events == 1


async def record_in(lab: Lab) -> None:
    await lab.metrics.record_event(VERSION_ID, True)


async def open_and_close(url: str) -> None:
    async with promptab.open(url):
        pass


def in_a_child(work: Callable[[], object]) -> str:
    """Fork, run the coroutine that `work` makes in a new loop, and return how it ended."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        answer = "done"
        try:
            asyncio.run(asyncio.wait_for(work(), HANG_SECONDS))  # type: ignore[arg-type]
        except StoreUnavailableError as error:
            sign = next((sign for sign in ("forked", "a store in memory") if sign in str(error)), str(error))
            answer = f"StoreUnavailableError: {sign}"
        except BaseException as error:  # noqa: BLE001 - pytest must not go on in the child
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    os.waitpid(process, 0)
    return answer


def test_a_program_can_start_others_while_a_store_is_open(lasting_url: str) -> None:
    """`subprocess` does not run what is registered for a fork, and the store does not notice."""

    async def main() -> None:
        async with promptab.open(lasting_url) as lab:
            await lab.metrics.record_event(VERSION_ID, True)
            done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
            assert done.stdout == b"1\n"
            await lab.metrics.record_event(VERSION_ID, True)

    asyncio.run(main())
    assert len(stored(lasting_url)) == 2
