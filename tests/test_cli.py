"""The command line as a whole: its start, its help, its errors and their exit codes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
import typer
from typer.testing import CliRunner

import promptab
from promptab.cli import Promptab
from promptab.cli.exit_codes import KINDS, ExitCode, kind_of
from promptab.cli.lazy import Entry, LazyGroup, flowing
from promptab.cli.output import console, facts, print_json, table, visible
from promptab.errors import MissingExtraError, PromptabError
from tests.command_line import Shell, in_new_process

GROUPS = {
    "experiment": ("create", "start", "pause", "resume", "stop", "complete", "weights", "list", "status"),
    "events": ("export", "prune"),
    "snapshot": ("write", "check"),
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


def test_help_lists_every_command_and_loads_no_database(tmp_path: Path) -> None:
    heavy = ["sqlalchemy", "alembic", "numpy", "scipy", "jsonschema", "promptab.doctor", "promptab.cli.show"]
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded', [m for m in {heavy!r} if m in sys.modules], file=sys.stderr))\n"
        "from promptab.cli import main\n"
        "main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert finished.stderr == "loaded []\n"
    for name, entry in Promptab.entries.items():
        assert name in finished.stdout
        assert entry.short_help.split()[0] in finished.stdout


def test_commands_are_those_of_the_documentation() -> None:
    assert sorted(Promptab.entries) == sorted(
        [
            *("init", "demo", "sync", "list", "show", "diff", "log", "new", "tag", "promote", "rollback"),
            *(
                "deployments",
                "render",
                "experiment",
                "assign",
                "record",
                "metrics",
                "events",
                "compare",
                "copy",
                "snapshot",
                "cost",
                "alerts",
                "doctor",
                "export",
                "import",
                "test",
                "decide",
                "decisions",
                "approve",
                "override",
                "watch",
            ),
        ]
    )


@pytest.mark.parametrize("name", sorted(Promptab.entries))
def test_help_of_a_command_teaches_and_has_json_and_url(shell: Shell, name: str) -> None:
    names = [[name, sub] for sub in GROUPS.get(name, ())] or [[name]]
    for words in names:
        shown = shell.ok(*words, "--help")
        assert "Usage: promptab" in shown.replace("root", "promptab")
        assert "--json" in shown
        # a copy has two stores, and a file is checked without one
        assert "--url" in shown or words in (["copy"], ["snapshot", "check"])


def test_version_is_printed(shell: Shell) -> None:
    assert shell.ok("--version") == f"promptab {promptab.__version__}\n"


def test_unknown_command_suggests_the_close_one(shell: Shell) -> None:
    said = shell.run("lst")
    assert (said.code, said.out) == (2, "")
    assert "No such command 'lst'. Did you mean 'list'?" in said.err


def test_unknown_option_suggests_the_close_one(shell: Shell) -> None:
    said = shell.run("list", "--statsu", "draft")
    assert said.code == 2
    assert "--status" in said.err


def test_missing_argument_is_a_usage_error_in_json_too(shell: Shell) -> None:
    said = shell.run("show", "--json")
    assert (said.code, said.out) == (2, "")
    assert json.loads(said.err)["error"]["kind"] == "usage"


def test_unknown_prompt_suggests_the_close_one(shell: Shell) -> None:
    shell.make_greeting()
    said = shell.run("show", "system/greting")
    assert (said.code, said.out) == (3, "")
    assert said.err == "error: no prompt 'system/greting'; did you mean system/greeting?\n"


def test_unknown_prompt_names_what_there_is_when_nothing_is_close(shell: Shell) -> None:
    assert "the store is empty" in shell.run("show", "system/zzz").err
    shell.make_greeting()
    assert "there are system/greeting" in shell.run("show", "system/zzz").err


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["show", "system/nobody"], 3, "not_found"),
        (["show", "system/greeting@9.9.9"], 3, "not_found"),
        (["experiment", "start", "nobody"], 3, "not_found"),
        (["compare", "nobody"], 3, "not_found"),
        (["new", "system/greeting", "-t", "other", "--version", "1.0.0"], 4, "conflict"),
        (["promote", "system/greeting@1.1.0", "--expected", "1.0.0"], 4, "conflict"),
        (["new", "system/other", "-t", "{% if %}"], 5, "invalid_input"),
        (["new", "poem/other", "-t", "x"], 5, "invalid_input"),
        (["render", "system/greeting@1.0.0"], 5, "invalid_input"),
        (["promote", "system/greeting"], 5, "invalid_input"),
        (["record", "system/greeting@1.0.0", "--rating", "9"], 5, "invalid_input"),
        (["rollback", "system/greeting"], 6, "wrong_state"),
        (["list", "--url", "sqlite:///garbage.db"], 7, "store"),
        (["list", "--url", "sqlite:///no/such/folder/promptab.db"], 7, "store_unavailable"),
        (["list", "--url", "mysql://u:secret@host/db"], 5, "invalid_input"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_code_tells_the_kind_of_error(shell: Shell, words: list[str], code: int, kind: str) -> None:
    shell.make_greeting()
    (shell.folder / "garbage.db").write_text("this is no database, " * 100)
    said = shell.run(*words)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert "secret" not in said.err
    in_json = shell.run(*words, "--json")
    error = json.loads(in_json.err)["error"]
    assert (in_json.code, in_json.out, error["kind"]) == (code, "", kind)
    assert said.err == f"error: {error['message']}\n"


def test_invalid_input_in_json_names_field_value_and_bound(shell: Shell) -> None:
    error = json.loads(shell.run("new", "poem/x", "-t", "x", "--json").err)["error"]
    assert (error["field"], error["value"]) == ("prompt_type", "poem")
    assert "system" in error["bound"]


def all_errors(base: type[PromptabError] = PromptabError) -> Iterator[type[PromptabError]]:
    for child in base.__subclasses__():
        if child.__module__ == "promptab.errors":
            yield child
            yield from all_errors(child)


def test_every_error_of_the_library_has_a_kind() -> None:
    for error in all_errors():
        kind = kind_of(error.__new__(error))
        assert kind in KINDS.values()
        assert kind.code != ExitCode.UNEXPECTED or error is MissingExtraError


class Failing(LazyGroup):
    entries: ClassVar = {"burn": Entry("tests.command_line:broken", "Fail.", "Commands")}


def test_unexpected_error_is_one_line_unless_the_traceback_is_asked_for() -> None:
    failing = typer.Typer(cls=Failing)

    @failing.callback()
    def root(*, traceback: bool = False) -> None:
        """Take the option as the real command line does."""

    plain = CliRunner().invoke(failing, ["burn"])
    assert (plain.exit_code, plain.stdout) == (1, "")
    assert plain.stderr.startswith("error: RuntimeError: the roof is on fire (unexpected; run it again with")
    assert plain.stderr.count("\n") == 1
    for words, environment in ((["--traceback", "burn"], {}), (["burn"], {"PROMPTAB_TRACEBACK": "1"})):
        told = CliRunner().invoke(failing, words, env=environment)
        assert told.exit_code == 1
        assert "in broken" in told.stderr


def test_new_process_gives_the_exit_code_and_keeps_errors_off_standard_output(tmp_path: Path) -> None:
    said = in_new_process(tmp_path, "show", "system/nobody")
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("error: no prompt 'system/nobody'")
    assert in_new_process(tmp_path, "nonsense").code == 2
    assert in_new_process(tmp_path, "list", "--json").out == "[]\n"


def test_url_is_taken_from_the_environment(tmp_path: Path) -> None:
    said = in_new_process(
        tmp_path, "new", "config/k", "--config", '{"k": 1}', environment={"PROMPTAB_URL": "sqlite:///else.db"}
    )
    assert said.code == 0
    assert [path.name for path in tmp_path.glob("*.db")] == ["else.db"]


def test_output_has_no_colour_when_it_is_not_a_terminal(shell: Shell) -> None:
    shell.make_greeting()
    for words in (["diff", "greeting", "1.0.0", "1.1.0"], ["show", "nobody"]):
        said = in_new_process(shell.folder, *words)
        assert said.out + said.err
        assert "\x1b" not in said.out + said.err


def test_markup_in_a_prompt_is_shown_as_it_is(shell: Shell) -> None:
    shell.ok("new", "system/a", "-t", "[bold]Hi[/bold] :smile: {{ x }}", "-m", "[red]no[/red]")
    assert "[bold]Hi[/bold] :smile: {{ x }}" in shell.ok("show", "a")
    assert "[red]no[/red]" in shell.ok("log", "a")


def test_control_characters_do_not_reach_the_terminal(shell: Shell) -> None:
    assert visible("red \x1b[31m \x9b1m\r\x7f") == "red ␛[31m \ufffd1m␍\ufffd"
    assert visible("a\tb\nc ä") == "a\tb\nc ä"
    assert "\x1b" not in shell.run("show", "system/\x1b[31m").err


@pytest.mark.parametrize("words", [["list"], ["list", "--status", "active"], ["log"]])
def test_tables_keep_every_fact_in_80_columns(shell: Shell, words: list[str]) -> None:
    name = "a_name_that_is_really_much_too_long_for_any_table_with_eighty_columns"
    shell.ok("new", f"system/{name}", "-t", "x", "--tag", "t" * 40, "-m", "m" * 50)
    listed = shell.ok(*words, *([name] if words == ["log"] else []))
    assert max(map(len, listed.splitlines())) <= 80
    assert "…" not in listed
    letters = [letter for letter in listed if letter not in "\n ─"]
    for wanted, kept in (
        (name, words != ["log"]),
        ("t" * 40, words != ["list"]),
        ("m" * 50, words == ["log"]),
    ):
        if kept:
            assert all(letters.count(letter) >= wanted.count(letter) for letter in set(wanted))


def test_a_table_folds_a_long_cell_and_a_list_of_facts_does_too() -> None:
    to = console()
    rows = table("first", "second", right=["second"])
    rows.add_row("x" * 200, "y")
    with to.capture() as captured:
        to.print(rows)
        to.print(facts([("name", "z" * 200)]))
    shown = captured.get()
    assert (shown.count("x"), shown.count("z")) == (200, 200)


def test_json_holds_no_number_that_is_not_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"value": float("nan"), "text": "ä"})
    assert json.loads(capsys.readouterr().out) == {"value": None, "text": "ä"}


def test_help_flows_except_for_its_examples() -> None:
    text = "One\nsentence.\n\nTwo\nmore.\n\n$ promptab list\n$ promptab log x"
    assert flowing(text) == "One sentence.\n\nTwo more.\n\n$ promptab list\n$ promptab log x"
    assert flowing(None) == ""


def test_doctor_exits_with_8_when_something_is_wrong(shell: Shell) -> None:
    shell.make_greeting()
    assert "The store is sound." in shell.ok("doctor")
    with closing(sqlite3.connect("promptab.db")) as connection:
        connection.execute("UPDATE promptab_versions SET status = 'production'")
        connection.commit()
    said = shell.run("doctor")
    assert said.code == 8
    assert "bears 'production' beside the pointer" in " ".join(said.out.split())
    assert json.loads(shell.run("doctor", "--json").out)["sound"] is False


def test_doctor_makes_no_store_where_there_is_none(shell: Shell) -> None:
    assert shell.run("doctor").code == 3
    assert list(shell.folder.iterdir()) == []


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "promptab", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"promptab {promptab.__version__}\n"
