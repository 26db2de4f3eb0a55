"""The examples as people run them, each in a process of its own."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

import promptab
from promptab import Lab, VersionManager
from tests.postgres import fetched

ROOT = Path(__file__).parents[1]
BAD = "system/greeting", "1.0.2", "--reason", "wrong language"


def run_example(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PROMPTAB_")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_every_example_is_run_here() -> None:
    tested = {
        "quickstart.py",
        "replay.py",
        "rollback.py",
        "several_processes.py",
        "autopilot.py",
        *LOCAL,
        "fastapi_app.py",
    }
    # what the others import is no example
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == tested | {"local_provider.py"}


LOCAL = {
    "chat_openai.py": ("openai", "2 calls of message/support_reply/1.0.0: $0.000"),
    "chat_anthropic.py": ("anthropic", "success True, 150 tokens, cost $0.000"),
    "in_the_shadow.py": ("openai", "candidate: "),
    "rag_top_k.py": ("openai", "top_3 is 0.1"),
    "models_ab.py": ("sklearn", "in production: support_vectors"),
}
"""Example -> the package that it needs, and what its last line begins with."""


@pytest.mark.parametrize("name", LOCAL)
def test_an_example_runs_without_a_key(name: str) -> None:
    package, last = LOCAL[name]
    pytest.importorskip(package, reason=f"{package} is not installed")
    done = run_example(name, "--local", OPENAI_API_KEY="", ANTHROPIC_API_KEY="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(last)
    if name.startswith("chat"):
        assert done.stdout.splitlines()[:2] == ["Your parcel is on its way. It comes on Friday."] * 2


def test_the_web_service_answers_and_takes_feedback(tmp_path: Path) -> None:
    for package in ("openai", "fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    url = f"sqlite:///{tmp_path / 'web.db'}"
    with serving("fastapi_app.py", "--local", PROMPTAB_URL=url, OPENAI_API_KEY="") as address:
        status, reply = posted(address, "/reply", user="u42", question="Where is it?")
        assert (status, reply["text"]) == (200, "It comes on Friday.")
        assert posted(address, "/feedback", call_id=reply["call_id"], rating=5)[0] == 204
        assert posted(address, "/feedback", call_id=str(uuid.uuid4()), rating=5)[0] == 404
        assert posted(address, "/reply", user="u42")[0] == 422

    async def look() -> list[tuple[str, float | None]]:
        async with promptab.open(url) as lab:
            version = await lab.versions.get_version("reply", "system", "production")
            assert version is not None
            events = await lab.metrics.get_events(version.version_id)
            return sorted((event.kind, event.user_rating) for event in events)

    assert asyncio.run(look()) == [("outcome", 5.0), ("use", None)]


@contextmanager
def serving(name: str, *arguments: str, **variables: str) -> Iterator[str]:
    """Run an example that serves on a port of loopback until the block ends; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / name), *arguments, "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        # uvicorn says when it is ready; a process that fails ends its output
        for line in process.stderr:
            if address in line:
                break
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def posted(address: str, path: str, **body: object) -> tuple[int, Any]:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content else None


@pytest.mark.parametrize(
    ("how", "moves", "live"),
    [
        ([], [("keep", "Traffic grows from 0.2 to 1"), ("promote", "Promote: 1.0.1 is ")], "1.0.1"),
        (["--worse"], [("keep", "Rollback: success_rate >= control - 5%: 1.0.1 has failed it")], "1.0.0"),
    ],
    ids=["better", "worse"],
)
def test_autopilot_ends_without_anybody_deciding(
    tmp_path: Path, how: list[str], moves: list[tuple[str, str]], live: str
) -> None:
    done = run_example("autopilot.py", *how, "--url", f"sqlite:///{tmp_path / 'autopilot.db'}")
    assert (done.returncode, done.stderr) == (0, "")
    told, history = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert history[0].split()[:4] == ["promote", "-", "->", "1.0.0"]
    # a version that is worse may be rolled back in either step of the ramp
    for move, (action, begins) in zip(history[-len(moves) :], moves, strict=True):
        kept, _, _, reached, words = move.split(maxsplit=4)
        assert (kept, words[: len(begins)]) == (action, begins)
        assert any(line.startswith(words) for line in told)
    assert reached == live


def test_autopilot_is_fifteen_lines() -> None:
    source = (ROOT / "examples" / "autopilot.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    parts = [
        node
        for node in tree.body
        if (isinstance(node, ast.AsyncFunctionDef) and node.name == "roll_out")
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "POLICY")
    ]
    lines = [
        line
        for node in parts
        for line in source.splitlines()[node.lineno - 1 : node.end_lineno]
        if line.strip() and not line.strip().startswith("#")
    ]
    assert len(parts) == 2
    assert len(lines) <= 15


def test_quickstart_promotes_and_rolls_back(tmp_path: Path) -> None:
    done = run_example("quickstart.py", f"sqlite:///{tmp_path / 'quickstart.db'}")
    assert done.returncode == 0, done.stderr
    first, *history = done.stdout.splitlines()
    assert first.startswith("1.0.1 is ")
    assert "points better (95 % interval" in first
    assert [tuple(move.split()[:4]) for move in history] == [
        ("promote", "-", "->", "1.0.0"),
        ("promote", "1.0.0", "->", "1.0.1"),
        ("rollback", "1.0.1", "->", "1.0.0"),
    ]


@pytest.mark.parametrize("options", [(), ("--all",)], ids=["assigned", "all"])
def test_replay_reads_the_recorded_replies(
    shared_dir: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run_example(
        "replay.py",
        str(shared_dir / "data" / "zero_shot_replies.jsonl.gz"),
        "--url",
        f"sqlite:///{tmp_path / 'replay.db'}",
        *options,
    )
    assert done.returncode == 0, done.stderr
    live = [line.split()[-1] for line in done.stdout.splitlines() if "in production" in line]
    assert live == (["1.0.0"] * 4 if options else ["1.1.0", "1.1.0", "1.0.0", "1.0.0"])
    if options:
        assert "78.667 % right of 600 replies" in done.stdout
        assert "the difference is -4.2 points" in done.stdout


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rollback.db'}"


async def three_live_in_turn(url: str, after: Callable[[Lab], Awaitable[None]] | None = None) -> None:
    """Make 1.0.0, 1.0.1 and 1.0.2, each of them promoted; the last is the bad one."""
    async with promptab.open(url) as lab:
        for text in ("Hello {{ name }}.", "Hi {{ name }}.", "Hola {{ name }}."):
            version = await lab.versions.create_version("greeting", "system", text)
            await lab.versions.promote(version.version_id)
        if after is not None:
            await after(lab)


async def live_version(url: str, environment: str = "production") -> str:
    async with promptab.open(url) as lab:
        choice = await lab.choose("greeting", "system", environment=environment)
        assert choice.version is not None
        return choice.version.version


async def history_of(versions: VersionManager) -> list[tuple[str, str | None, str]]:
    return [
        (move.action, move.version, move.reason) for move in await versions.deployments("greeting", "system")
    ]


async def test_rollback_takes_the_bad_version_out_and_says_so(url: str) -> None:
    await three_live_in_turn(url)
    done = run_example("rollback.py", *BAD, "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "production of system/greeting: 1.0.2 -> 1.0.1\n"
    assert await live_version(url) == "1.0.1"
    async with promptab.open(url) as lab:
        assert (await history_of(lab.versions))[-1] == ("rollback", "1.0.1", "wrong language")


async def test_rollback_changes_nothing_the_second_time(url: str) -> None:
    await three_live_in_turn(url)
    run_example("rollback.py", *BAD, "--url", url)
    again = run_example("rollback.py", *BAD, "--url", url)
    assert again.returncode == 0
    assert "nothing was changed" in again.stdout
    assert await live_version(url) == "1.0.1"
    async with promptab.open(url) as lab:
        assert len(await lab.versions.deployments("greeting", "system")) == 4


async def test_rollback_takes_the_store_from_the_environment(url: str) -> None:
    await three_live_in_turn(url)
    done = run_example("rollback.py", *BAD, PROMPTAB_URL=url)
    assert done.returncode == 0, done.stderr
    assert await live_version(url) == "1.0.1"


async def test_rollback_moves_only_the_environment_that_is_named(url: str) -> None:
    async def stage(lab: Lab) -> None:
        for number in ("1.0.1", "1.0.2"):
            version = await lab.versions.get_version("greeting", "system", number)
            assert version is not None
            await lab.versions.promote(version.version_id, "staging")

    await three_live_in_turn(url, stage)
    done = run_example("rollback.py", *BAD, "--environment", "staging", "--url", url)
    assert done.returncode == 0, done.stderr
    assert await live_version(url, "staging") == "1.0.1"
    assert await live_version(url) == "1.0.2"


@pytest.mark.parametrize(
    ("version", "said"), [("1.0.9", "no version"), ("production", "exact number"), ("^1.0", "exact number")]
)
async def test_rollback_refuses_what_may_mean_another_version_next_time(
    url: str, version: str, said: str
) -> None:
    await three_live_in_turn(url)
    done = run_example("rollback.py", "system/greeting", version, "--reason", "a test", "--url", url)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert await live_version(url) == "1.0.2"


async def test_rollback_says_when_there_is_nothing_to_go_back_to(url: str) -> None:
    async with promptab.open(url) as lab:
        await lab.versions.create_version("greeting", "system", "Hello.", "1.0.2", status="production")
    done = run_example("rollback.py", *BAD, "--url", url)
    assert done.returncode == 1
    assert "nothing that was live before" in done.stderr


def test_several_processes_of_the_compose_file_share_one_database(postgres_url: str) -> None:
    compose = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert services["prepare"]["environment"] == services["app"]["environment"]
    prepared = run_example(*arguments_of(services["prepare"]), PROMPTAB_URL=postgres_url)
    assert (prepared.returncode, prepared.stderr) == (0, ""), prepared.stderr

    def serve(_: int) -> subprocess.CompletedProcess[str]:
        return run_example(*arguments_of(services["app"])[:-1], "300", PROMPTAB_URL=postgres_url)

    processes = services["app"]["deploy"]["replicas"]
    with ThreadPoolExecutor(processes) as pool:
        served = list(pool.map(serve, range(processes)))
    assert [(done.returncode, done.stderr) for done in served] == [(0, "")] * processes
    counts = [int(part.split()[1]) for done in served for part in done.stdout.split(", ")]
    assert sum(counts) == 300 * processes
    assert len(counts) == 2 * processes

    async def look() -> tuple[int, int]:
        async with promptab.open(postgres_url) as lab:
            result = await lab.analyze("greeting")
            events = fetched(postgres_url, "SELECT count(*) AS events FROM promptab_events")[0]["events"]
            return sum(result.units.values()), events

    units, events = asyncio.run(look())
    assert events == 300 * processes
    assert 300 < units <= 300 * processes


def arguments_of(service: dict[str, list[str]]) -> list[str]:
    """Return the example that a service runs, and its arguments."""
    python, path, *arguments = service["command"]
    assert (python, path.startswith("examples/")) == ("python", True)
    return [path.removeprefix("examples/"), *arguments]
