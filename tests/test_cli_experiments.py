"""`promptab experiment, assign, record, metrics, compare`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from promptab import Lab
from promptab.analysis.wording import measure
from promptab.cli.output import run
from promptab.cli.wording import counted, percent, span
from tests.command_line import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a folder whose store has system/greeting 1.0.0 and 1.1.0."""
    made = Shell(tmp_path, monkeypatch)
    made.make_greeting()
    return made


def create(shell: Shell, *words: str) -> None:
    shell.ok(
        "experiment", "create", "system/greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=3", *words
    )


def test_create_starts_the_experiment_with_the_weights(shell: Shell) -> None:
    told = shell.ok("experiment", "create", "greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=3")
    assert told == "experiment greeting is running: 1.0.0 25.0 %, 1.1.0 75.0 %\n"


def test_create_keeps_what_the_options_say(shell: Shell) -> None:
    start = datetime.now(UTC) + timedelta(days=1)
    made = shell.json(
        "experiment", "create", "tone test", "--prompt", "system/greeting", "--variant", "old:1.0.0=1",
        "--variant", "new:1.1.0=1", "--config", 'new={"temperature": 0.1}', "--control", "new",
        "--primary-metric", "resolved", "--traffic", "0.5", "--unit", "session", "--where", "plan == 'pro'",
        "--layer", "voice", "--draft", "--starts-at", start.isoformat(),
        "--ends-at", (start + timedelta(days=7)).isoformat(),
    )  # fmt: skip
    assert (made["name"], made["prompt_name"], made["status"]) == ("tone test", "greeting", "draft")
    assert [(arm["key"], arm["version"], arm["config"]) for arm in made["variants"]] == [
        ("old", "1.0.0", None), ("new", "1.1.0", {"temperature": 0.1}),
    ]  # fmt: skip
    assert (made["control"], made["primary_metric"], made["traffic"]) == ("new", "resolved", 0.5)
    assert (made["unit"], made["where"], made["layer"]) == ("session", "plan == 'pro'", "voice")
    assert datetime.fromisoformat(made["starts_at"]) == start


def test_create_takes_configurations_alone(shell: Shell) -> None:
    made = shell.json(
        "experiment", "create", "top-k", "--variant", "few=1", "--variant", "many=2",
        "--config", 'few={"k": 3}', "--config", 'many={"k": 8}',
    )  # fmt: skip
    assert made["prompt_type"] == "config"
    assert [(arm["key"], arm["version"], arm["config"]) for arm in made["variants"]] == [
        ("few", None, {"k": 3}), ("many", None, {"k": 8}),
    ]  # fmt: skip
    assigned = shell.json("assign", "top-k", "--user", "u1")
    assert assigned["config"] in ({"k": 3}, {"k": 8})
    assert '"k": ' in shell.ok("assign", "top-k", "--user", "u1")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["greeting", "--variant", "1.0.0=1"], 5, "at least two variants"),
        (["greeting", "--variant", "1.0.0=1", "--variant", "7.0.0=1"], 3, "7.0.0"),
        (["greeting", "--variant", "1.0.0=x", "--variant", "1.1.0"], 5, "a number"),
        (["greeting", "--variant", "1.0.0=-1", "--variant", "1.1.0"], 5, "greater than 0"),
        (["greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--config", "x={}"], 5, "1.0.0, 1.1.0"),
        (["greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--control", "x"], 5, "control"),
        (["greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--unit", "planet"], 5, "session"),
        (["greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--holdout", "h"], 3, "holdout"),
        (["greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--ends-at", "2001-01-01"], 5, "ends_at"),
        (
            ["system/greeting", "--type", "user", "--variant", "1.0.0", "--variant", "1.1.0"],
            5,
            "leave --type out",
        ),
        (["stranger", "--variant", "1.0.0", "--variant", "1.1.0"], 5, "--type system"),
    ],
)
def test_create_refuses_what_makes_no_experiment(
    shell: Shell, words: list[str], code: int, told: str
) -> None:
    said = shell.run("experiment", "create", *words)
    assert (said.code, said.out) == (code, "")
    assert told in said.err
    assert shell.json("experiment", "list") == []


def test_create_says_when_the_prompt_does_not_exist(shell: Shell) -> None:
    said = shell.run("experiment", "create", "user/stranger", "--variant", "1.0.0", "--variant", "1.1.0")
    assert said.code == 0
    assert said.err == "note: there is no prompt user/stranger in this store\n"


def test_status_commands_follow_the_table(shell: Shell) -> None:
    create(shell, "--draft")
    for command, status in (("start", "running"), ("pause", "paused"), ("resume", "running")):
        assert shell.json("experiment", command, "greeting")["status"] == status
    ended = shell.ok("experiment", "complete", "greeting", "--winner", "1.1.0")
    assert ended.startswith("experiment greeting is completed, won by 1.1.0")
    said = shell.run("experiment", "start", "greeting")
    assert said.code == 6
    assert "create a new experiment" in said.err


def test_stop_ends_without_a_winner(shell: Shell) -> None:
    create(shell)
    stopped = shell.json("experiment", "stop", "greeting")
    assert (stopped["status"], stopped["winner"]) == ("stopped", None)
    assert shell.ok("assign", "greeting", "--user", "u1") == "no variant: the experiment is stopped\n"


def test_weights_change_for_every_variant_or_not_at_all(shell: Shell) -> None:
    create(shell)
    changed = shell.json("experiment", "weights", "greeting", "1.0.0=0", "1.1.0=2", "--evict")
    assert changed["traffic_split"] == {"1.0.0": 0.0, "1.1.0": 1.0}
    assert shell.run("experiment", "weights", "greeting", "1.0.0=1").code == 5
    assert shell.run("experiment", "weights", "greeting", "1.0.0=1", "1.1.0=nan").code == 5
    assert shell.json("experiment", "status", "greeting")["variants"][1]["configured"] == 1.0


def test_list_filters_by_status(shell: Shell) -> None:
    create(shell)
    assert [made["name"] for made in shell.json("experiment", "list", "--status", "running")] == ["greeting"]
    assert shell.json("experiment", "list", "--status", "stopped") == []
    assert "No experiment matches." in shell.ok("experiment", "list", "--name", "nobody")
    assert "1.1.0 75.0 %" in shell.ok("experiment", "list")


def test_status_tells_configured_and_actual_split(shell: Shell) -> None:
    create(shell)
    for number in range(8):
        shell.ok("assign", "greeting", "--user", f"u{number}")
    told = shell.json("experiment", "status", "greeting")
    units = [variant["units"] for variant in told["variants"]]
    assert (told["units"], sum(units)) == (8, 8)
    assert [variant["actual"] for variant in told["variants"]] == [number / 8 for number in units]
    assert [variant["configured"] for variant in told["variants"]] == [0.25, 0.75]
    shown = shell.ok("experiment", "status", "greeting")
    for part in (
        "running, started less than a minute ago",
        "1.0.0 (control)",
        "25.0 %",
        "75.0 %",
        "units so far",
    ):
        assert part in shown


def test_status_of_a_draft_has_no_split_yet(shell: Shell) -> None:
    create(shell, "--draft")
    told = shell.json("experiment", "status", "greeting")
    assert (told["seconds"], told["variants"][0]["actual"]) == (None, None)
    assert "draft" in shell.ok("experiment", "status", "greeting")


def test_assign_gives_the_same_variant_again_and_looks_at_attributes(shell: Shell) -> None:
    create(shell, "--where", "age >= 18 and plan == 'pro'")
    words = ["assign", "greeting", "--user", "u1", "--attribute", "plan=pro", "--attribute"]
    first = shell.json(*words, "age:=30")
    assert first["variant"] in {"1.0.0", "1.1.0"}
    assert shell.json(*words, "age:=30")["variant"] == first["variant"]
    assert (
        shell.json("assign", "greeting", "--user", "u2", "--attribute", "plan=free")["reason"]
        == "not_targeted"
    )
    assert shell.ok(*words, "age:=30").startswith(f"{first['variant']}: ")


def test_assign_by_session_and_by_features(shell: Shell) -> None:
    create(shell)
    assert shell.json("assign", "greeting", "--session", "s1")["unit"] == "session:s1"
    shell.ok(
        "experiment", "create", "shapes", "--type", "config", "--unit", "features", "--variant", "a", "--variant", "b",
        "--config", "a={}", "--config", "b={}",
    )  # fmt: skip
    one = shell.json("assign", "shapes", "--feature", "country=NZ", "--feature", "age:=3")
    other = shell.json("assign", "shapes", "--feature", "age:=3", "--feature", "country=NZ")
    assert one["unit"] == other["unit"]
    assert shell.json("assign", "shapes", "--user", "u1")["reason"] == "no_unit"


def test_record_keeps_what_the_options_say(shell: Shell) -> None:
    create(shell)
    variant = shell.json("assign", "greeting", "--user", "u1")["variant"]
    event = shell.json(
        "record", f"greeting@{variant}", "--failure", "--response-time", "0.5", "--input-tokens", "10",
        "--cached-input-tokens", "2", "--output-tokens", "5", "--cost", "0.001", "--rating", "4",
        "--metric", "resolved=1", "--experiment", "greeting", "--variant", variant, "--user", "u1",
        "--at", "2025-01-02T03:04:05",
    )  # fmt: skip
    assert (event["success"], event["response_time"], event["cost"], event["user_rating"]) == (
        False,
        0.5,
        0.001,
        4.0,
    )
    assert event["tokens"] == {"input": 10, "cached_input": 2, "output": 5, "total": 17}
    assert (event["metrics"], event["user_id"], event["variant"]) == ({"resolved": 1.0}, "u1", variant)
    assert event["timestamp"].startswith("2025-01-02T03:04:05")


def test_record_of_the_same_event_id_counts_once(shell: Shell) -> None:
    same = ["--event-id", "0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f", "--at", "2025-01-02T03:04:05"]
    assert shell.ok("record", "greeting@1.0.0", "--success", *same) == (
        "recorded event 0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f\n"
    )
    shell.ok("record", "greeting@1.0.0", "--success", *same)
    assert shell.json("metrics", "greeting@1.0.0")[0]["total_events"] == 1
    said = shell.run("record", "greeting@1.0.0", "--failure", *same, "--json")
    assert said.code == 4
    assert json.loads(said.err)["error"]["kind"] == "conflict"


def test_record_without_a_version_is_a_later_outcome(shell: Shell) -> None:
    create(shell)
    shell.ok("assign", "greeting", "--user", "u1")
    event = shell.json("record", "--experiment", "greeting", "--user", "u1", "--metric", "resolved=1")
    assert (event["kind"], event["metrics"]) == ("outcome", {"resolved": 1.0})
    session = shell.json("record", "--experiment", "greeting", "--session", "s1", "--success")
    assert (session["kind"], session["success"]) == ("outcome", True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--success"], "say what was used"),
        (["--experiment", "greeting", "--user", "u1"], "one outcome"),
        (["--experiment", "greeting", "--user", "u1", "--metric", "a=1", "--metric", "b=2"], "one outcome"),
        (["--experiment", "greeting", "--user", "u1", "--input-tokens", "3"], "--tokens alone"),
        (["--experiment", "greeting", "--metric", "a=1"], "user_id or session_id"),
        (["greeting", "--success"], "say which"),
        (["greeting@1.0.0", "--session", "s1"], "say --user"),
        (["greeting@1.0.0", "--metric", "a=inf"], "finite"),
        (["greeting@1.0.0", "--metric", "cost=1"], "cost"),
        (["greeting@1.0.0", "--variant", "1.0.0"], "experiment_id"),
        (["greeting@1.0.0", "--tokens", "-3"], "whole number"),
    ],
)
def test_record_refuses_what_it_cannot_keep(shell: Shell, words: list[str], told: str) -> None:
    create(shell)
    said = shell.run("record", *words)
    assert (said.code, said.out) == (5, "")
    assert told in said.err
    assert [one["total_events"] for one in shell.json("metrics", "greeting")] == [0, 0]


def test_metrics_add_up_by_version_and_tell_unknown_from_zero(shell: Shell) -> None:
    shell.ok("record", "greeting@1.0.0", "--success", "--response-time", "2", "--metric", "resolved=1")
    shell.ok("record", "greeting@1.0.0", "--failure", "--at", "2001-01-01T00:00")
    told = shell.json("metrics", "greeting")
    assert [one["version"] for one in told] == ["system/greeting@1.1.0", "system/greeting@1.0.0"]
    assert [one["total_events"] for one in told] == [0, 2]
    assert told[1]["success_rate"] == 0.5
    rows = [line.split() for line in shell.ok("metrics", "greeting").splitlines()]
    assert ["1.1.0", "0", "-", "-", "-", "-", "-"] in rows
    assert ["1.0.0", "2", "50", "%", "2", "s", "-", "-", "-"] in rows
    assert ["resolved", "-", "1"] in rows
    assert shell.json("metrics", "greeting@1.0.0", "--since", "7d")[0]["total_events"] == 1
    assert shell.run("metrics", "greeting", "--since", "soon").code == 5


def record_uses(count: int, *, fail: str | None = None) -> None:
    """Give `count` users an outcome each; those of the variant `fail` fail, but for every seventh."""

    async def work(lab: Lab) -> None:
        for number in range(count):
            choice = await lab.choose("greeting", user_id=f"u{number}")
            success = number % 7 == 0 if choice.variant == fail else number % 9 != 0
            await choice.record(success=success, metrics={"score": float(number % 5)})

    run(work, url=None)


def test_compare_names_a_winner_only_with_reason(shell: Shell) -> None:
    create(shell)
    empty = shell.ok("compare", "greeting")
    assert "No winner." in empty
    assert "Not enough units yet" in " ".join(empty.split())
    record_uses(1300, fail="1.0.0")
    told = shell.json("compare", "greeting")
    assert (told["winner"], told["control"]) == ("1.1.0", "1.0.0")
    shown = shell.ok("compare", "greeting")
    for part in (
        "Success rate (primary, higher is better)",
        "Winner: 1.1.0",
        "├",
        "┤",
        "●",
        "score (higher is better)",
    ):
        assert part in shown
    flowing = " ".join(shown.split())
    assert told["caution"] in flowing
    assert told["metrics"]["success_rate"]["differences"]["1.1.0"]["sentence"] in flowing
    assert max(map(len, shown.splitlines())) <= 80


def test_compare_shows_the_metrics_that_are_asked_for(shell: Shell) -> None:
    create(shell)
    record_uses(6)
    told = shell.json("compare", "greeting", "--metric", "score")
    assert list(told["metrics"]) == ["success_rate", "score"]
    said = shell.run("compare", "greeting", "--metric", "scroe")
    assert said.code == 3
    assert "no metric 'scroe'" in said.err
    assert shell.json("compare", "greeting", "--confidence", "0.8")["confidence"] == 0.8
    assert shell.run("compare", "greeting", "--confidence", "2").code == 5


def test_a_bandit_is_made_and_rebalanced(shell: Shell) -> None:
    made = shell.json(
        "experiment", "create", "greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--bandit", "thompson",
        "--floor", "0.1", "--uniform", "0.2", "--window", "24", "--primary-metric", "rating",
    )  # fmt: skip
    assert made["bandit"] == {
        "algorithm": "thompson",
        "floor": 0.1,
        "challenger": 0.0,
        "minimum_units": 100,
        "batch_units": 100,
        "batch_hours": 1.0,
        "uniform": 0.2,
    }
    assert made["plan"]["window_hours"] == 24
    assert "thompson, at least 10.0 % each, 20.0 % of units dealt alike" in shell.ok(
        "experiment", "status", "greeting"
    )
    told = shell.ok("experiment", "rebalance", "greeting")
    assert told.startswith("weights as they are: these weights are in force until")
    found = shell.json("experiment", "rebalance", "greeting")
    assert (found["changed"], found["weights"]) == (False, {"1.0.0": 0.5, "1.1.0": 0.5})
    assert "uniform slice" in shell.ok("experiment", "analyze", "greeting", "--uniform")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--floor", "0.1"], 5, "--floor: 0.1 is not given with --bandit"),
        (["--bandit", "tompson"], 5, "'thompson', 'epsilon_greedy' or 'ucb'"),
        (["--bandit", "thompson", "--floor", "0.7"], 5, "bandit.floor: 0.7"),
        (["--bandit", "ucb", "--primary-metric", "rating"], 5, "plan.window_hours"),
        (["--window", "-1"], 5, "plan.window_hours: -1"),
    ],
    ids=["floor alone", "typo", "floor too high", "late metric", "window"],
)
def test_what_makes_no_bandit_is_refused(shell: Shell, words: list[str], code: int, told: str) -> None:
    said = shell.run("experiment", "create", "greeting", "--variant", "1.0.0", "--variant", "1.1.0", *words)
    assert said.code == code
    assert told in said.err
    assert shell.json("experiment", "list") == []


def test_weights_that_follow_nothing_are_not_rebalanced(shell: Shell) -> None:
    shell.ok("experiment", "create", "greeting", "--variant", "1.0.0", "--variant", "1.1.0")
    said = shell.run("experiment", "rebalance", "greeting")
    assert said.code != 0
    assert "declare a bandit" in said.err
    assert "no uniform slice" in shell.run("experiment", "analyze", "greeting", "--uniform").err


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=3, minutes=5, seconds=9), "3 hours 5 minutes"),
        (timedelta(days=1200, hours=1, minutes=9), "1,200 days 1 hour"),
        (timedelta(days=-1), "less than a minute"),
    ],
)
def test_span_tells_the_two_largest_units(length: timedelta, told: str) -> None:
    assert span(length) == told


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (measure(None, "percent"), "-"),
        (measure(0.7866667, "percent", width=0.04), "78.7 %"),
        (measure(0.7866667, "percent"), "78.67 %"),
        (measure(0.0004123, "dollars", width=0.0001), "$0.00041"),
        (measure(1234.5, "tokens", width=30), "1,234"),
        (measure(1e300, "number", width=1e-300), "1e+300"),
        (measure(0.5, "seconds", width=float("inf")), "0.5 s"),
        (percent(1 / 3), "33.3 %"),
        (counted(1, "unit"), "1 unit"),
        (counted(2000, "unit"), "2,000 units"),
    ],
)
def test_numbers_are_written_with_the_digits_they_deserve(shown: str, told: str) -> None:
    assert shown == told
