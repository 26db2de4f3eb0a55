"""Shadows at the command line: creating, changing, looking at what came of them and what they cost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import promptab
from tests.command_line import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path, monkeypatch)
    made.make_greeting()
    return made


CREATE = ("experiment", "create", "system/greeting", "--variant", "1.0.0", "--shadow", "new:1.1.0=0.5")


async def lived(folder: Path, units: int) -> None:
    chance = random.Random(5)
    async with promptab.open(f"sqlite:///{folder / 'promptab.db'}") as lab:
        for number in range(units):
            choice = await lab.choose("greeting", user_id=f"u{number}")
            choice.record_nowait(True, 2.0 + chance.random(), 100, cost=0.001)
            for run in choice.shadows:
                fine = chance.random() < 0.9
                run.record_nowait(
                    fine, 1.0, 90, cost=0.002, metadata=None if fine else {"call": {"failure": "timeout"}}
                )


def test_an_experiment_with_one_variant_and_a_shadow_is_made_and_its_share_changed(shell: Shell) -> None:
    made = shell.json(*CREATE)
    assert [(variant["key"], variant["shadow"]) for variant in made["shadows"]] == [("new", 0.5)]
    assert made["traffic_split"] == {"1.0.0": 1.0}
    assert "1.0.0 100.0 %; new in the shadow of 20.0 %" in shell.ok(
        "experiment", "shadow", "greeting", "new", "0.2"
    )
    assert "new (1.1.0), run for 20.0 % of the units" in shell.ok("experiment", "status", "greeting")
    told = shell.json("experiment", "status", "greeting")
    assert told["shadows"] == [{"key": "new", "version": "1.1.0", "share": 0.2}]
    assert [variant["key"] for variant in told["variants"]] == ["1.0.0"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--variant", "1.0.0", "--shadow", "1.1.0"), "SHARE"),
        (("--variant", "1.0.0", "--shadow", "1.1.0=2"), "shadow"),
        (("--variant", "1.0.0", "--shadow", "9.9.9=0.1"), "9.9.9"),
        (("--variant", "1.0.0", "--shadow", "1.1.0=x"), "--shadow"),
    ],
    ids=["no share", "too large a share", "no version", "no number"],
)
def test_what_is_no_shadow_is_refused_by_name(shell: Shell, words: tuple[str, ...], named: str) -> None:
    said = shell.run("experiment", "create", "system/greeting", *words)
    assert said.code != 0
    assert named in said.err


def test_a_share_of_what_is_no_shadow_is_refused(shell: Shell) -> None:
    shell.ok(*CREATE)
    said = shell.run("experiment", "shadow", "greeting", "1.0.0", "0.5")
    assert said.code != 0
    assert "one of the experiment's shadows: new" in said.err


def test_an_analysis_shows_what_ran_in_the_shadow_below_it(shell: Shell) -> None:
    shell.ok(*CREATE)
    assert "no runs so far" in shell.ok("experiment", "analyze", "greeting")
    asyncio.run(lived(shell.folder, 260))
    said = shell.ok("experiment", "analyze", "greeting")
    above, below = said.split("In the shadow (served to nobody, in none of the numbers above)")
    assert "Nothing is compared: 1.0.0 is the only variant that is served" in above
    assert "new" not in above
    assert "failed: timeout" in below
    assert "response time" in below
    assert max(len(line) for line in said.splitlines()) <= 80
    told = shell.json("experiment", "analyze", "greeting")
    (shadow,) = told["shadows"]["shadows"]
    assert told["units"] == {"1.0.0": 260}
    assert shadow["runs"] == shadow["units"] == shadow["comparisons"][0]["calls"]
    faster = next(
        each for each in shadow["comparisons"][0]["differences"] if each["metric"] == "response_time"
    )
    assert faster["high"] < 0.0


def test_an_experiment_without_shadows_says_nothing_of_them(shell: Shell) -> None:
    shell.ok("experiment", "create", "system/greeting", "--variant", "1.0.0", "--variant", "1.1.0")
    asyncio.run(lived(shell.folder, 10))
    assert "shadow" not in shell.ok("experiment", "analyze", "greeting")
    assert "shadows" not in shell.json("experiment", "analyze", "greeting")
    assert "shadow" not in shell.ok("cost")
    assert "nothing has run in the shadow" in shell.ok("cost", "--shadow")


def test_costs_of_the_shadow_stand_apart(shell: Shell) -> None:
    shell.ok(*CREATE)
    asyncio.run(lived(shell.folder, 40))
    runs = shell.json("experiment", "analyze", "greeting")["shadows"]["shadows"][0]["runs"]
    assert [row["version"] for row in shell.json("cost")] == ["system/greeting@1.0.0"]
    (row,) = shell.json("cost", "--shadow", "--by", "variant")
    assert (row["variant"], row["calls"]) == ("greeting: new", runs)
    assert row["cost"] == pytest.approx(0.002 * runs)
    above, below = shell.ok("cost").split("in the shadow, served to nobody")
    assert "system/greeting@1.0.0" in above
    assert "system/greeting@1.1.0" in below
    assert "system/greeting@1.0.0" not in shell.ok("cost", "--shadow")
