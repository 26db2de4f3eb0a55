"""The examples in the helps are run as they stand, in the order in which somebody would use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from promptab.cli import Promptab, app
from promptab.cli.lazy import EXAMPLE
from tests.command_line import Shell

ORDER = (
    "init", "list", "log", "show", "diff", "new", "tag", "render", "promote",
    "experiment sample-size",
    "experiment create", "experiment list", "assign", "record", "experiment status", "experiment analyze", "metrics",
    "cost", "compare",
    "experiment weights", "experiment shadow", "experiment pause", "experiment resume", "experiment complete",
    "experiment start", "experiment stop", "rollback", "deployments", "events export", "events prune",
    "snapshot write", "snapshot check", "doctor",
)  # fmt: skip
ELSEWHERE = frozenset(
    {
        "demo",
        "test",
        "sync",
        "copy",
        "import",
        "export",
        "experiment replay",
        "experiment interaction",
        "experiment promote-winner",
        "experiment policy",
        "decide",
        "decisions",
        "approve",
        "override",
        "watch",
        "experiment rebalance",
        "alerts deliver",
        "alerts retry",
        "alerts prune",
        "alerts forget",
    }
)
"""Commands whose examples need other files, a model, a policy, a bandit, alerts or many units: their own tests run
them.
"""


def helps() -> dict[str, str]:
    """Return the help of every command, by the words that call it."""
    root = typer.main.get_command(app)
    assert isinstance(root, Promptab)
    context = root.make_context("promptab", ["list"])
    found = {}
    for name in root.list_commands(context):
        if name in ELSEWHERE:
            continue
        _, command, _ = root.resolve_command(context, [name])
        if isinstance(command, TyperGroup):
            subs = {f"{name} {sub}": each.help or "" for sub, each in command.commands.items()}
            found.update({words: text for words, text in subs.items() if words not in ELSEWHERE})
        else:
            found[name] = command.help or ""
    return found


def examples(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith(EXAMPLE):
            yield shlex.split(line.removeprefix("$ "))[1:]


def test_every_help_has_an_example_of_its_own_command() -> None:
    for command, text in helps().items():
        own = list(examples(text))
        assert own, f"the help of {command} has no example"
        for words in own:
            assert words[: len(command.split())] == command.split()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, database: str
) -> None:
    shell = Shell(tmp_path, monkeypatch)
    if database == "postgres":
        monkeypatch.setenv("PROMPTAB_URL", request.getfixturevalue("postgres_url"))
    shell.make_greeting()
    found = helps()
    assert sorted(ORDER) == sorted(found)
    for command in ORDER:
        if command == "rollback":
            shell.ok("promote", "system/greeting@1.1.0")
        for words in examples(found[command]):
            shell.ok(*words)
    history = shell.json("deployments", "system/greeting", "--environment", "production")
    assert [(move["action"], move["version"]) for move in history] == [
        ("promote", "1.0.0"), ("promote", "1.1.0"), ("rollback", "1.0.0"),
    ]  # fmt: skip
    assert shell.json("experiment", "status", "greeting")["experiment"]["winner"] == "1.1.0"
