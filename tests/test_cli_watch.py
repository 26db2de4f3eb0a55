"""`promptab watch`, and guarded promotions on the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from pathlib import Path

import pytest

import promptab
from promptab import WatchUpdate
from promptab.alerts.channel import AlertSettings
from promptab.cli.exit_codes import ExitCode
from promptab.cli.watch import _Shown, _watched, read_span
from promptab.errors import InvalidInputError, NotFoundError
from tests.command_line import Shell, in_new_process

POLICIES = """\
policies:
  careful:
    guardrails: ["success_rate >= 0.8"]
    longest_hours: 24
  quick:
    guardrails: ["error_rate <= 0.9"]
    allow_approximate: true
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def guarded(shell: Shell) -> Shell:
    """1.1.0 is live over 1.0.0, and guarded."""
    shell.make_greeting()
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    shell.ok("promote", "system/greeting@1.0.0")
    said = shell.ok("promote", "system/greeting@1.1.0", "--guard", "careful")
    assert said.splitlines() == [
        "system/greeting@1.1.0 is live in production (before: 1.0.0)",
        "guarded: `promptab watch` takes it back once a guardrail has failed",
    ]
    return shell


def record(shell: Shell, successes: int, failures: int) -> None:
    for said in ["--success"] * successes + ["--failure"] * failures:
        shell.ok("record", "system/greeting@1.1.0", said)


def test_a_guarded_version_that_fails_is_rolled_back_by_one_look(guarded: Shell) -> None:
    record(guarded, 0, 6)
    said = guarded.ok("watch", "--once")
    [line] = said.splitlines()
    assert (
        " system/greeting@1.1.0: rollback 1.1.0 (applied by watch): Rollback: success_rate >= 0.8: " in line
    )
    assert line.endswith(": production is back at 1.0.0")
    assert [move["action"] for move in guarded.json("deployments", "system/greeting")] == [
        "promote",
        "promote",
        "rollback",
    ]
    listed = guarded.ok("decisions", "system/greeting")
    assert "rollback 1.1.0 (guardrail): applied by watch" in listed
    [stored] = guarded.json("decisions", "system/greeting")
    assert "The same again: rollback 1.1.0" in guarded.ok(
        "decide", "system/greeting", "--replay", stored["decision_id"][:8]
    )


def test_deployments_tell_what_is_guarded_until_when(guarded: Shell) -> None:
    said = guarded.ok("deployments", "system/greeting")
    assert "1.1.0 is guarded in production until 2" in said
    assert said.rstrip().endswith(": success_rate >= 0.8")


def test_a_look_without_applying_changes_nothing(guarded: Shell) -> None:
    record(guarded, 0, 6)
    said = guarded.ok("watch", "--once", "--no-apply")
    assert "rollback 1.1.0 (not applied): Rollback: success_rate >= 0.8: " in said
    assert len(guarded.json("deployments", "system/greeting")) == 2


def test_json_is_a_document_a_line_without_what_it_was_made_from(guarded: Shell) -> None:
    record(guarded, 3, 0)
    [line] = guarded.ok("watch", "--once", "--json").splitlines()
    told = json.loads(line)
    assert (told["state"], told["subject"]) == ("leading", "system/greeting@1.1.0")
    assert told["decision"]["decision"]["action"] == "continue"
    assert "inputs" not in told["decision"]["decision"]


def test_nothing_to_watch_is_said(shell: Shell) -> None:
    shell.make_greeting()
    [line] = shell.ok("watch", "--once").splitlines()
    assert line.endswith("watch: leading: nothing that has a policy or a guard is running")


def test_a_store_that_is_away_is_another_exit_code(shell: Shell) -> None:
    said = shell.run("watch", "--once", "--url", "postgresql://nobody@127.0.0.1:1/none")
    assert said.code == 7


def test_one_look_at_a_store_that_is_away_promises_no_other(guarded: Shell) -> None:
    store = sqlite3.connect(guarded.folder / "promptab.db")
    with contextlib.closing(store):
        store.execute("DROP TABLE promptab_leases")
        store.commit()
        said = guarded.run("watch", "--once")
    assert said.code == 7
    assert "watch: away: the store is away: " in said.out


def test_lines_are_printed_when_something_has_changed_also_of_two_that_have_one_name(
    guarded: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = (
        "experiment",
        "create",
        "greeting",
        "--variant",
        "1.0.0",
        "--variant",
        "1.1.0",
        "--policy",
        "quick",
    )
    guarded.ok(*trial)
    guarded.ok("experiment", "pause", "greeting")
    guarded.ok(*trial)

    async def rounds() -> list[WatchUpdate]:
        async with promptab.open() as lab:
            return [update for _ in range(2) async for update in lab.watch(["greeting"], once=True)]

    shown = _Shown(as_json=False)
    for update in asyncio.run(rounds()):
        shown.tell(update)
    lines = [line.partition(" greeting: ")[2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(line[:48] for line in lines if line) == [
        "continue (nothing to do): Not enough units yet: ",
        "continue (nothing to do): The experiment is paus",
    ]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_a_terminal_cannot_show_ends_no_watch(guarded: Shell, words: tuple[str, ...]) -> None:
    made = ("--prompt", "system/greeting", "--variant", "1.0.0", "--variant", "1.1.0", "--policy", "quick")
    guarded.ok("experiment", "create", "gr\u00fc\u00dfe", *made)
    plain = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    said = in_new_process(guarded.folder, "watch", "--once", *words, environment=plain)
    assert said.code == 0, said.err
    told = [line for line in said.out.splitlines() if "fe" in line and "continue" in line]
    if words:
        assert "gr\u00fc\u00dfe" in [json.loads(line)["subject"] for line in told]
    else:
        assert r"gr\xfc\xdfe: continue" in said.out
    done = in_new_process(
        guarded.folder, "override", "gr\u00fc\u00dfe", "pause", "--reason", "lunch", environment=plain
    )
    assert done.code == 0, done.err


def test_a_guard_that_no_file_declares_is_refused(guarded: Shell) -> None:
    said = guarded.run("promote", "system/greeting@1.0.0", "--guard", "carefull")
    assert said.code == 3
    assert "careful" in said.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("5m", 300.0), ("6h", 21_600.0), ("1d", 86_400.0), ("0.5", 0.5)]
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert read_span("--interval", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 minutes", "1e3", "1y"])
def test_what_is_no_span_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--interval"):
        read_span("--interval", text)


def test_an_interval_that_is_too_short_is_refused(shell: Shell) -> None:
    shell.make_greeting()
    said = shell.run("watch", "--interval", "0s")
    assert said.code == 5
    assert "interval" in said.err


def test_looks_are_as_far_apart_as_the_project_has_it(shell: Shell) -> None:
    file = shell.folder / "promptab.yaml"
    for block, told in (
        ("{monitoring: {check_interval_hours: 6}}", True),
        ("{enabled: false, monitoring: {check_interval_hours: 6}}", False),
        ("{automation: {auto_promote_winner: true}}", False),
    ):
        file.write_text(f"ab_testing: {block}\n", encoding="utf-8")
        assert ("a look every 6 hours" in shell.run("watch", "--once").err) == told
        assert "a look every" not in shell.run("watch", "--once", "--interval", "5m").err


@pytest.mark.parametrize(("once", "code"), [(True, ExitCode.INTERRUPTED), (False, ExitCode.OK)])
async def test_a_look_that_was_cut_short_is_none(tmp_path: Path, *, once: bool, code: ExitCode) -> None:
    url = f"sqlite:///{tmp_path / 'promptab.db'}"
    shown = _Shown(as_json=False)
    watching = asyncio.ensure_future(_watched(shown, url, None, 30.0, AlertSettings(), once=once, apply=True))
    await asyncio.sleep(0)
    watching.cancel()
    try:
        assert await watching == code
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def test_a_version_that_is_live_already_is_guarded_in_sight(guarded: Shell) -> None:
    again = guarded.ok("promote", "system/greeting@1.1.0", "--guard", "quick")
    assert again.splitlines()[1:] == ["guarded: `promptab watch` takes it back once a guardrail has failed"]
    assert "guarded" not in guarded.ok("promote", "system/greeting@1.1.0")


@pytest.mark.parametrize("how", [("--once",), ()], ids=["once", "loop"])
def test_an_unknown_name_among_several_ends_the_watch_before_it_begins(
    guarded: Shell, how: tuple[str, ...]
) -> None:
    record(guarded, 0, 6)
    said = guarded.run("watch", "system/greeting", "greting", *how)
    assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
    assert "no experiment or prompt 'greting'; " in said.err
    assert "did you mean greeting" in said.err
    assert [move["action"] for move in guarded.json("deployments", "system/greeting")] == ["promote"] * 2
    assert "rollback 1.1.0" in guarded.ok("watch", "system/greeting", "greeting", "--once")


def test_a_name_like_nothing_is_told_where_the_names_are(guarded: Shell) -> None:
    said = guarded.run("watch", "zzz", "--once")
    assert said.code == ExitCode.NOT_FOUND
    assert "promptab experiment list" in said.err


async def test_a_name_that_could_not_be_asked_for_is_held_against_the_store_once_it_is_back(
    tmp_path: Path,
) -> None:
    file = tmp_path / "promptab.db"
    file.mkdir()
    watching = asyncio.ensure_future(
        _watched(
            _Shown(as_json=False),
            f"sqlite:///{file}",
            ["greting"],
            0.1,
            AlertSettings(),
            once=False,
            apply=True,
        )
    )
    try:
        await asyncio.sleep(0.5)
        assert not watching.done()
        file.rmdir()
        with pytest.raises(NotFoundError, match="greting"):
            await asyncio.wait_for(watching, 20)
    finally:
        watching.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
