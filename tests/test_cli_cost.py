"""`promptab cost`: what calls cost, by version, prompt, model and variant, and what nobody knows."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import promptab
from promptab import InvalidInputError, PromptVariant
from tests.command_line import Shell

NOW = datetime.now(UTC)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


async def record(folder: Path) -> None:
    async with promptab.open(f"sqlite:///{folder / 'promptab.db'}") as lab:
        first = await lab.versions.create_version("reply", "system", "Hi.")
        second = await lab.versions.create_version("reply", "system", "Hello.")
        other = await lab.versions.create_version("ask", "user", "Why?")
        experiment = await lab.experiments.create_experiment(
            "reply", "system", [PromptVariant("1.0.0"), PromptVariant("1.0.1")]
        )

        async def call(
            version_id: str | None, cost: float | None, model: str, **more: str | datetime
        ) -> None:
            tokens = None if cost is None else {"input": 10, "cached_input": 5, "output": 2}
            told = {"call": {"model": "asked", "response_model": model}}
            await lab.metrics.record_event(version_id, cost=cost, tokens=tokens, metadata=told, **more)  # type: ignore[arg-type]

        here: dict[str, str | datetime] = {"experiment_id": experiment.experiment_id, "user_id": "u"}
        await call(first.version_id, 0.25, "small", variant="1.0.0", **here)
        await call(first.version_id, None, "small", variant="1.0.0", **here)
        await call(second.version_id, 1.5, "large", variant="1.0.1", **here)
        await call(other.version_id, 0.125, "small", timestamp=NOW - timedelta(days=9))
        # a fallback: its cost is real, and no version's
        await call(None, 0.0625, "spare")
        await lab.metrics.record_result("reply", "rating", 5, user_id="u")


@pytest.fixture
def recorded(shell: Shell) -> Shell:
    asyncio.run(record(shell.folder))
    return shell


def found(shell: Shell, by: str, *words: str) -> list[tuple[str | None, int, float, int]]:
    rows = shell.json("cost", "--by", by, *words)
    return [(row[by], row["calls"], row["cost"], row["unknown"]) for row in rows]


def test_costs_are_added_up_by_version_and_a_fallbacks_stand_apart(recorded: Shell) -> None:
    assert found(recorded, "version") == [
        ("system/reply@1.0.1", 1, 1.5, 0),
        ("system/reply@1.0.0", 2, 0.25, 1),
        ("user/ask@1.0.0", 1, 0.125, 0),
        (None, 1, 0.0625, 0),
    ]


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("prompt", [("system/reply", 3, 1.75, 1), ("user/ask", 1, 0.125, 0), (None, 1, 0.0625, 0)]),
        ("model", [("large", 1, 1.5, 0), ("small", 3, 0.375, 1), ("spare", 1, 0.0625, 0)]),
        ("variant", [("reply: 1.0.1", 1, 1.5, 0), ("reply: 1.0.0", 2, 0.25, 1), (None, 2, 0.1875, 0)]),
    ],
)
def test_costs_are_added_up_by(
    recorded: Shell, by: str, rows: list[tuple[str | None, int, float, int]]
) -> None:
    assert found(recorded, by) == rows


def test_since_leaves_out_what_was_before(recorded: Shell) -> None:
    assert ("user/ask", 1, 0.125, 0) not in found(recorded, "prompt", "--since", "7d")
    assert ("user/ask", 1, 0.125, 0) in found(recorded, "prompt", "--since", "10d")


def test_people_read_what_is_known_and_how_much_is_not(recorded: Shell) -> None:
    shown = recorded.ok("cost", "--since", "7d")
    assert "system/reply@1.0.1" in shown
    assert "together $1.81; not known of 1 call\n" in shown
    (line,) = [line for line in shown.splitlines() if "1.0.0" in line]
    assert line.split() == ["system/reply@1.0.0", "2", "$0.250000", "1", "10", "5", "2"]


def test_no_calls_cost_nothing_that_anybody_knows_of(shell: Shell) -> None:
    shell.make_greeting()
    assert shell.ok("cost") == "no calls are recorded\n"
    assert json.loads(shell.ok("cost", "--json")) == []


def test_what_costs_are_not_added_up_by_is_refused(shell: Shell) -> None:
    shell.make_greeting()
    said = shell.run("cost", "--by", "weather")
    assert (said.code, "version, prompt, model, variant" in said.err) == (5, True)


async def test_the_lab_refuses_it_too() -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        with pytest.raises(InvalidInputError, match="one of version"):
            await lab.costs("weather")  # type: ignore[arg-type]
