"""`promptab sync`: what it prints, what it changes, and its exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from promptab.cli.copy import copy
from promptab.cli.sync import app
from tests.command_line import Said, Shell, in_new_process


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a folder with the files system/tone and system/reply, which includes it, and no store yet."""
    (tmp_path / "prompts" / "system").mkdir(parents=True)
    shell = Shell(tmp_path, monkeypatch)
    write(shell, tone="Be kind.", reply='{% include "system/tone@^1.0" %} Reply.')
    return shell


def write(shell: Shell, **texts: str) -> None:
    for name, text in texts.items():
        (shell.folder / "prompts" / "system" / f"{name}.md").write_text(text)


def make_conflict(shell: Shell) -> None:
    shell.ok("sync", "push")
    write(shell, tone="Be brief.")
    shell.ok("new", "system/tone", "-t", "Be formal.")


def actions(said: Said) -> dict[str, str]:
    return {item["name"]: item["action"] for item in json.loads(said.out)["items"]}


def test_status_says_what_a_push_would_do_and_changes_nothing(shell: Shell) -> None:
    out = shell.ok("sync", "status")
    assert "new in the files" in out
    assert out.index("system/tone") < out.index("system/reply")
    assert shell.ok("sync") == out
    assert shell.ok("sync", "push", "--dry-run") == out
    assert shell.json("list") == []
    assert not (shell.folder / "prompts" / "promptab.lock").exists()


def test_push_prints_the_plan_and_what_was_done(shell: Shell) -> None:
    out = shell.ok("sync", "push", "--actor", "grace")
    assert out.index("new in the files") < out.index("system/tone: version 1.0.0")
    assert shell.ok("sync") == "2 prompts in step\n"
    assert shell.json("log", "system/tone")[0]["created_by"] == "grace"


def test_push_twice_makes_nothing_new(shell: Shell) -> None:
    shell.ok("sync", "push")
    assert shell.ok("sync", "push") == "2 prompts in step\n"


def test_json_of_a_push_has_the_plan_and_the_outcomes(shell: Shell) -> None:
    document = shell.json("sync", "push")
    assert [item["action"] for item in document["items"]] == ["push", "push"]
    assert [(o["name"], o["version"], o["done"]) for o in document["outcomes"]] == [
        ("tone", "1.0.0", True),
        ("reply", "1.0.0", True),
    ]
    assert document["in_step"] is False
    assert shell.json("sync", "status")["in_step"] is True


def test_pull_writes_what_is_new_in_the_store(shell: Shell) -> None:
    shell.ok("sync", "push")
    shell.ok("new", "system/greeting", "-t", "Hello.")
    assert "system/greeting: wrote system/greeting.md" in shell.ok("sync", "pull")
    assert (shell.folder / "prompts/system/greeting.md").read_text().strip() == "Hello."
    shell.ok("sync", "check")


def test_a_conflict_shows_both_changes_and_ends_with_4(shell: Shell) -> None:
    make_conflict(shell)
    write(shell, other="Greet.")
    said = shell.run("sync", "push")
    assert said.code == 4
    for fact in (
        "in the store, since 1.0.0",
        "+Be formal.",
        "in the file, since 1.0.0",
        "+Be brief.",
        "--ours",
    ):
        assert fact in said.out
    assert "system/other: version 1.0.0" in said.out
    assert shell.run("sync", "pull").code == 4
    assert (shell.folder / "prompts/system/tone.md").read_text() == "Be brief."
    assert shell.run("sync", "status").code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [(("push", "--ours"), "Be brief."), (("pull", "--theirs"), "Be formal.")],
    ids=["ours", "theirs"],
)
def test_a_conflict_is_settled_by_an_option(shell: Shell, words: tuple[str, str], text: str) -> None:
    make_conflict(shell)
    shell.ok("sync", *words, "system/tone")
    assert shell.json("show", "system/tone")["template"].strip() == text
    assert (shell.folder / "prompts/system/tone.md").read_text().strip() == text


def test_check_ends_with_8_until_everything_is_in_step(shell: Shell) -> None:
    assert shell.run("sync", "check").code == 8
    shell.ok("sync", "push")
    assert shell.run("sync", "check").code == 0
    shell.ok("new", "system/tone", "-t", "Be formal.")
    said = shell.run("sync", "check", "--json")
    assert said.code == 8
    assert actions(said) == {"tone": "pull", "reply": "push"}


def test_check_of_files_alone_makes_and_asks_no_store(shell: Shell) -> None:
    assert shell.run("sync", "check", "--files-only").code == 8
    assert not (shell.folder / "promptab.db").exists()
    shell.ok("sync", "push")
    assert shell.run("sync", "check", "--files-only", "--url", "nonsense://x").code == 0
    write(shell, tone="Be brief.")
    said = shell.run("sync", "check", "--files-only", "--json")
    assert said.code == 8
    assert actions(said) == {"tone": "push", "reply": "in_step"}


def test_a_bad_file_ends_with_5_and_the_others_are_pushed(shell: Shell) -> None:
    write(shell, bad="---\nmodle: x\n---\nHello.")
    said = shell.run("sync", "push")
    assert said.code == 5
    assert "system/bad.md:2:" in said.out
    assert len(shell.json("list")) == 2


def test_something_strange_in_the_folder_fails_the_check(shell: Shell) -> None:
    shell.ok("sync", "push")
    (shell.folder / "prompts" / "sytem").mkdir()
    said = shell.run("sync", "check")
    assert said.code == 8
    assert "did you mean system/?" in said.out
    assert shell.run("sync", "push").code == 5


def test_another_store_ends_with_6_until_it_is_adopted(shell: Shell) -> None:
    shell.ok("sync", "push")
    other = ("--url", "sqlite:///other.db")
    shell.ok("new", "system/tone", "-t", "Be kind.", *other)
    said = shell.run("sync", "push", *other)
    assert said.code == 6
    assert "--adopt" in said.out
    shell.ok("sync", "push", "--adopt", *other)
    shell.ok("sync", "check", *other)


def test_a_prompt_that_is_refused_while_pushing_gives_its_exit_code(shell: Shell) -> None:
    write(shell, tone="---\npromptab: {status: archived, tags: [production]}\n---\nBe kind.", reply="Reply.")
    said = shell.run("sync", "push", "--json")
    assert said.code == 6
    outcomes = {outcome["name"]: outcome for outcome in json.loads(said.out)["outcomes"]}
    assert (outcomes["tone"]["done"], outcomes["tone"]["error"]) == (False, "wrong_state")
    assert outcomes["reply"]["done"] is True


def test_options_before_the_command_are_refused_instead_of_ignored(shell: Shell) -> None:
    said = shell.run("sync", "--dir", "elsewhere", "push")
    assert said.code == 2
    assert shell.json("list") == []


@pytest.mark.parametrize("label", ["tone", "system/nothing", "sistem/tone"])
def test_a_side_is_chosen_for_a_prompt_that_is_there(shell: Shell, label: str) -> None:
    assert shell.run("sync", "push", "--ours", label).code == 5
    assert shell.json("list") == []


def test_a_folder_that_is_not_there_is_named(shell: Shell) -> None:
    said = shell.run("sync", "status", "--dir", "nowhere")
    assert said.code == 5
    assert "prompt_dir: 'nowhere'" in said.err


def test_an_empty_folder_and_an_empty_store_are_in_step(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    assert "no prompts yet" in shell.ok("sync", "check", "--dir", "empty")


def test_a_number_that_promises_too_little_is_pushed_with_a_note(shell: Shell) -> None:
    shell.ok("sync", "push")
    write(shell, tone="---\npromptab: {version: 1.0.1}\n---\nBe kind to {{ name }}.")
    said = shell.run("sync", "push")
    assert said.code == 0
    assert "system/tone: 1.0.1 promises a patch change, but this one is major" in said.out


def test_check_exits_with_8_as_a_process(shell: Shell) -> None:
    assert in_new_process(shell.folder, "sync", "check").code == 8
    assert in_new_process(shell.folder, "sync", "push").code == 0
    said = in_new_process(shell.folder, "sync", "check")
    assert (said.code, said.out, said.err) == (0, "2 prompts in step\n", "")


def test_every_example_in_the_help_runs(shell: Shell) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    order = ["status", "push", "pull", "check"]
    assert sorted(group.commands) == sorted(order)
    for name in order:
        lines = [line for line in (group.commands[name].help or "").splitlines() if line.startswith("$ ")]
        assert lines, f"the help of sync {name} has no example"
        for line in lines:
            shell.ok(*shlex.split(line)[2:])
    shell.make_greeting()
    lines = [line.strip() for line in (copy.__doc__ or "").splitlines() if line.strip().startswith("$ ")]
    assert len(lines) == 2
    for line in lines:
        shell.ok(*shlex.split(line)[2:])
    assert len(shell.json("list", "--url", "sqlite:///copied.db")) == 3


def test_copy_prints_what_was_copied(shell: Shell) -> None:
    shell.make_greeting()
    shell.ok("promote", "system/greeting@1.0.0")
    first = shell.json("copy", "sqlite:///promptab.db", "sqlite:///b.db")["prompts"]
    assert [(prompt["versions"], prompt["deployments"]) for prompt in first] == [(["1.0.0", "1.1.0"], 1)]
    assert "nothing" in shell.ok("copy", "sqlite:///promptab.db", "sqlite:///b.db")


def test_copy_ends_with_4_where_a_number_has_another_content(shell: Shell) -> None:
    shell.make_greeting()
    shell.ok("new", "system/greeting", "-t", "Hi!", "--url", "sqlite:///b.db")
    said = shell.run("copy", "sqlite:///promptab.db", "sqlite:///b.db")
    assert said.code == 4
    assert "system/greeting@1.0.0" in said.out


def test_copy_does_not_make_the_store_that_it_is_to_read(shell: Shell) -> None:
    said = shell.run("copy", "sqlite:///mistyped.db", "sqlite:///b.db")
    assert said.code == 3
    assert not (shell.folder / "mistyped.db").exists()
    assert not (shell.folder / "b.db").exists()
