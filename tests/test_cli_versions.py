"""`promptab init, list, show, diff, log, new, tag, render, promote, rollback, deployments`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from promptab.library import FileSystemPromptLibrary
from tests.command_line import Shell, in_new_process

CHAT = '[{"role": "system", "content": "Be {{ tone }}."}, {"role": "user", "content": "{{ question }}"}]'


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def greeting(shell: Shell) -> Shell:
    """A shell in a folder whose store has system/greeting 1.0.0 and 1.1.0."""
    shell.make_greeting()
    return shell


def test_init_makes_a_folder_that_can_be_used_at_once(shell: Shell) -> None:
    report = shell.json("init", "project")
    assert report["store_created"] is True
    assert sorted(report["created"]) == ["project/prompts/README.md", "project/prompts/system/greeting.md"]
    contents = FileSystemPromptLibrary(shell.folder / "project" / "prompts").load()
    assert [file.path for file in contents.prompts.values()] == ["system/greeting.md"]
    assert contents.problems == ()
    assert (shell.folder / "project" / "promptab.db").is_file()


def test_init_says_what_to_do_next(shell: Shell) -> None:
    told = shell.ok("init", "project")
    assert "cd project" in told
    assert "promptab sync push" in told
    assert "cd " not in shell.ok("init")


def test_init_twice_leaves_everything_as_it_is(shell: Shell) -> None:
    shell.ok("init")
    example = shell.folder / "prompts" / "system" / "greeting.md"
    example.write_text("My own text.", encoding="utf-8")
    again = shell.json("init")
    assert (again["created"], again["store_created"]) == ([], False)
    assert example.read_text(encoding="utf-8") == "My own text."


def test_init_adds_no_example_to_prompts_that_are_there(shell: Shell) -> None:
    (shell.folder / "prompts" / "user").mkdir(parents=True)
    assert shell.json("init")["created"] == ["prompts/README.md"]


def test_init_refuses_a_file_in_the_way(shell: Shell) -> None:
    (shell.folder / "prompts").write_text("a file")
    said = shell.run("init")
    assert said.code == 5
    assert "a folder that can be written to" in said.err


def test_new_numbers_the_version_by_the_change(shell: Shell) -> None:
    assert shell.ok("new", "system/a", "-t", "Hi {{ name }}") == "system/a@1.0.0 is active\n"
    assert shell.json("new", "a", "-t", "Hello {{ name }}")["version"] == "1.0.1"
    assert (
        shell.json("new", "a", "-t", "Hello {{ name }} {{ more }}", "--default", "more=x")["version"]
        == "1.1.0"
    )
    assert shell.json("new", "a", "-t", "Hello")["version"] == "2.0.0"
    assert shell.json("new", "a", "-t", "Hello!", "--bump", "minor")["version"] == "2.1.0"


def test_new_keeps_what_the_options_say(shell: Shell) -> None:
    made = shell.json(
        "new", "user/a", "-t", "{{ x }} {{ n }}", "--version", "3.0.0-rc.1", "--status", "draft", "--tag", "one",
        "--tag", "two", "-m", "why", "--default", "x=1", "--default", "n:=1", "--config", '{"model": "m"}',
        "--validation", '{"type": "object", "properties": {"n": {"type": "integer"}}}', "--actor", "Grace",
    )  # fmt: skip
    assert (made["version"], made["status"], made["tags"]) == ("3.0.0-rc.1", "draft", ["one", "two"])
    assert (made["defaults"], made["config"]) == ({"x": "1", "n": 1}, {"model": "m"})
    assert (made["metadata"], made["created_by"]) == ({"message": "why"}, "Grace")
    assert made["validation"]["properties"] == {"n": {"type": "integer"}}


def test_new_names_the_user_of_the_machine_as_the_author(shell: Shell) -> None:
    assert shell.json("new", "system/a", "-t", "x")["created_by"] == "ada"


def test_new_reads_a_file_and_standard_input(shell: Shell) -> None:
    (shell.folder / "a.txt").write_text("From a file: ä\n", encoding="utf-8")
    assert shell.json("new", "system/a", "--file", "a.txt")["template"] == "From a file: ä\n"
    shell.ok("new", "system/b", given="From a pipe")
    shell.ok("new", "system/c", "--template", "-", given="From a dash")
    assert shell.json("show", "b")["template"] == "From a pipe"
    assert shell.json("show", "c")["template"] == "From a dash"


def test_new_makes_a_chat_prompt_and_a_model(shell: Shell) -> None:
    chat = shell.json("new", "message/chat", "-t", CHAT)
    assert [message["role"] for message in chat["messages"]] == ["system", "user"]
    assert shell.json("new", "model/m", "--config", '{"model": "x"}')["config"] == {"model": "x"}


def test_new_with_if_changed_makes_nothing_of_the_same_content(greeting: Shell) -> None:
    same = greeting.json("new", "greeting", "-t", "Good day, {{ name }}!", "--if-changed")
    assert same["version"] == "1.1.0"
    assert len(greeting.json("list", "greeting")) == 2


def test_new_warns_of_a_number_that_promises_too_little(greeting: Shell) -> None:
    said = greeting.run("new", "greeting", "-t", "Hello {{ other }}", "--version", "1.1.1")
    assert said.code == 0
    assert said.err.startswith("warning: system/greeting@1.1.1 follows 1.1.0 as a patch step")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["new", "unknown", "-t", "x"], "say its type: system/unknown"),
        (["new", "system/a@1.0.0", "-t", "x"], "leave @VERSION out"),
        (["new", "system/a", "--file", "none.txt"], "a file that can be read"),
        (["new", "system/a", "-t", "x", "--file", "none.txt"], "give one of the two"),
        (["new", "system/a", "-t", "x", "--default", "novalue"], "KEY=VALUE"),
        (["new", "system/a", "-t", "x", "--default", "a=1", "--default", "a=2"], "given once"),
        (["new", "system/a", "-t", "x", "--default", "a:=nope"], "JSON"),
        (["new", "system/a", "-t", "x", "--config", "[1]"], "a JSON object"),
        (["new", "system/a", "-t", "x", "--bump", "huge"], "patch, minor, major, auto"),
        (["new", "message/a", "-t", "no json"], "JSON"),
        (["new", "system/a", "--type", "user", "-t", "x"], "leave --type out"),
        (["show", "system/a@"], "write the version after the @"),
    ],
)
def test_bad_input_names_the_remedy_and_makes_nothing(shell: Shell, words: list[str], told: str) -> None:
    said = shell.run(*words)
    assert (said.code, said.out) == (5, "")
    assert told in said.err
    assert shell.json("list") == []


def test_list_shows_what_is_live_of_every_prompt(greeting: Shell) -> None:
    greeting.ok("new", "model/m", "--config", "{}", "--status", "draft")
    greeting.ok("promote", "greeting@1.0.0")
    assert greeting.json("list") == [
        {
            "prompt_type": "model",
            "name": "m",
            "latest": None,
            "production": None,
            "staging": None,
            "versions": 1,
        },
        {
            "prompt_type": "system",
            "name": "greeting",
            "latest": "1.1.0",
            "production": "1.0.0",
            "staging": None,
            "versions": 2,
        },
    ]
    shown = greeting.ok("list")
    assert "none active" in shown
    assert "system/greeting" in shown
    assert [prompt["name"] for prompt in greeting.json("list", "--type", "model")] == ["m"]


def test_list_filters_by_name_tag_and_status(greeting: Shell) -> None:
    greeting.ok("tag", "greeting@1.0.0", "good")
    greeting.ok("new", "user/other", "-t", "x", "--status", "draft")

    def labels(*words: str) -> list[str]:
        return [f"{version['name']}@{version['version']}" for version in greeting.json("list", *words)]

    assert labels("greeting") == ["greeting@1.1.0", "greeting@1.0.0"]
    assert labels("--tag", "good") == ["greeting@1.0.0"]
    assert labels("--status", "draft") == ["other@1.0.0"]
    assert labels("system/greeting", "--tag", "none") == []
    assert "No version matches." in greeting.ok("list", "--tag", "none")
    assert greeting.run("list", "nobody").code == 3
    assert greeting.run("list", "--status", "asleep").code == 5


def test_a_bare_name_is_enough_unless_two_types_have_it(greeting: Shell) -> None:
    assert greeting.json("show", "greeting")["prompt_type"] == "system"
    greeting.ok("new", "user/greeting", "-t", "x")
    said = greeting.run("show", "greeting")
    assert said.code == 5
    assert "write system/greeting or user/greeting" in said.err
    assert greeting.json("show", "greeting", "--type", "user")["template"] == "x"


def test_show_tells_everything_about_a_version(greeting: Shell) -> None:
    greeting.ok("new", "system/tone", "-t", "Be kind.")
    greeting.ok(
        "new", "greeting", "-t", '{% include "system/tone@^1.0" %} Hi {{ name }} {{ more }}', "--default", "more=x",
        "--config", '{"model": "gpt-4.1-mini"}', "--tag", "good",
    )  # fmt: skip
    shown = greeting.ok("show", "greeting")
    for part in (
        "system/greeting@1.2.0", "active", "good", "by ada", "1.1.0", "name, more (optional)", "system/tone@1.0.0",
        '"model": "gpt-4.1-mini"', '"more": "x"', '{% include "system/tone@^1.0" %} Hi {{ name }} {{ more }}',
    ):  # fmt: skip
        assert part in shown
    document = greeting.json("show", "greeting")
    assert document["variables"] == {"required": ["name"], "optional": ["more"]}
    assert document["included_versions"] == {"system/tone@^1.0": "system/tone@1.0.0"}


def test_show_without_an_active_version_shows_the_highest(shell: Shell) -> None:
    shell.ok("new", "system/a", "-t", "x", "--status", "draft")
    shell.ok("new", "system/a", "-t", "y", "--status", "draft")
    assert shell.json("show", "a")["version"] == "1.0.1"
    said = shell.run("show", "a@latest")
    assert said.code == 3
    assert "there are 1.0.1 (draft), 1.0.0 (draft)" in said.err


@pytest.mark.parametrize(
    ("version", "number"),
    [("1.0.0", "1.0.0"), ("~1.0", "1.0.0"), ("^1", "1.1.0"), ("latest", "1.1.0"), ("good", "1.0.0")],
)
def test_a_reference_takes_numbers_ranges_and_tags(greeting: Shell, version: str, number: str) -> None:
    greeting.ok("tag", "greeting@1.0.0", "good")
    assert greeting.json("show", f"system/greeting@{version}")["version"] == number


def test_show_keeps_the_line_breaks_of_a_template(shell: Shell) -> None:
    template = f"{'long ' * 40}\n\n  indented"
    shell.ok("new", "system/a", "-t", template)
    assert template in shell.ok("show", "a")


def test_diff_tells_the_grade_and_the_reasons(greeting: Shell) -> None:
    greeting.ok("new", "greeting", "-t", "Good day, {{ name }}!", "--config", '{"model": "m"}')
    shown = greeting.ok("diff", "greeting", "1.0.0", "latest")
    assert "1.0.0 -> 1.2.0 is a minor change" in shown
    for line in ("configuration model changed", "- model: absent", '+ model: "m"', "-Hello {{ name }}!"):
        assert line in shown
    assert greeting.json("diff", "greeting", "1.0.0", "1.2.0")["grade"] == "minor"
    assert "have the same content" in greeting.ok("diff", "greeting", "1.0.0", "1.0.0")


def test_diff_has_colour_on_a_terminal(greeting: Shell) -> None:
    forced = in_new_process(
        greeting.folder, "diff", "greeting", "1.0.0", "1.1.0", environment={"FORCE_COLOR": "1"}
    )
    assert "\x1b[31m-Hello" in forced.out
    assert "\x1b[32m+Good day" in forced.out


def test_log_tells_the_history_oldest_first(greeting: Shell) -> None:
    greeting.ok("promote", "greeting@1.1.0")
    history = greeting.json("log", "greeting")
    assert [version["version"] for version in history] == ["1.0.0", "1.1.0"]
    rows = greeting.ok("log", "greeting").splitlines()
    assert rows[4].split()[:3] == ["1.0.0", "-", "active"]
    assert "first" in rows[4]
    assert rows[5].split()[:3] == ["1.1.0", "1.0.0", "production"]


def test_tag_puts_a_tag_on_and_takes_it_off(greeting: Shell) -> None:
    assert greeting.ok("tag", "greeting@1.0.0", "good") == "system/greeting@1.0.0: tags good\n"
    assert greeting.json("tag", "greeting@good", "good", "--remove")["tags"] == []
    assert greeting.ok("tag", "greeting@1.0.0", "production").endswith("tags production\n")
    assert greeting.json("show", "greeting@1.0.0")["status"] == "production"


def test_render_prints_exactly_the_text(shell: Shell) -> None:
    shell.ok("new", "system/a", "-t", "Hello {{ name }}!\n\n{{ n + 1 }} [b]", "--default", "name=you")
    assert shell.ok("render", "a", "--var", "n:=2") == "Hello you!\n\n3 [b]"
    (shell.folder / "v.json").write_text('{"n": 4, "name": "file"}')
    assert shell.ok("render", "a", "--vars", "v.json", "--var", "name=Ada") == "Hello Ada!\n\n5 [b]"


def test_render_labels_the_messages_of_a_chat(shell: Shell) -> None:
    shell.ok("new", "message/chat", "-t", CHAT)
    words = ["render", "chat", "--var", "tone=kind", "--var", "question=[system]"]
    assert shell.ok(*words) == "[system]\nBe kind.\n\n[user]\n[system]\n"
    document = shell.json(*words)
    assert document["messages"][1] == {"role": "user", "content": "[system]"}
    assert document["text"] is None


def test_render_gives_what_a_request_would_be_served(greeting: Shell) -> None:
    assert greeting.ok("render", "greeting", "--var", "name=Ada") == "Good day, Ada!"
    greeting.ok("promote", "greeting@1.0.0")
    assert greeting.ok("render", "greeting", "--var", "name=Ada") == "Hello Ada!"
    assert greeting.ok("render", "greeting@1.1.0", "--var", "name=Ada") == "Good day, Ada!"
    greeting.ok("experiment", "create", "greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=1")
    served = greeting.json("render", "greeting", "--var", "name=Ada", "--user", "u1")
    assert (served["source"], served["variant"]) == ("experiment", served["version"])


def test_render_names_a_missing_variable(greeting: Shell) -> None:
    said = greeting.run("render", "greeting")
    assert (said.code, said.out) == (5, "")
    assert "name" in said.err
    assert greeting.run("render", "greeting@7").code == 3


def test_promote_rollback_and_deployments_tell_the_story(greeting: Shell) -> None:
    promoted = greeting.ok("promote", "greeting@1.0.0", "--reason", "first", "--actor", "Grace")
    assert promoted == "system/greeting@1.0.0 is live in production\n"
    again = greeting.ok("promote", "greeting@latest", "--expected", "1.0.0", "--reason", "better")
    assert again == "system/greeting@1.1.0 is live in production (before: 1.0.0)\n"
    back = greeting.json("rollback", "greeting", "--expected", "1.1.0", "--reason", "worse after all")
    assert (back["rolled_back"], back["deployment"]["version"]) == (True, "1.0.0")
    moves = greeting.json("deployments", "greeting")
    assert [(move["action"], move["version"], move["actor"], move["reason"]) for move in moves] == [
        ("promote", "1.0.0", "Grace", "first"),
        ("promote", "1.1.0", "ada", "better"),
        ("rollback", "1.0.0", "ada", "worse after all"),
    ]
    assert "worse after all" in " ".join(greeting.ok("deployments", "greeting").split())


def test_rollback_with_expected_is_safe_to_run_twice(greeting: Shell) -> None:
    greeting.ok("promote", "greeting@1.0.0")
    greeting.ok("promote", "greeting@1.1.0")
    greeting.ok("rollback", "greeting", "--expected", "1.1.0")
    again = greeting.ok("rollback", "greeting", "--expected", "1.1.0")
    assert again == "Nothing to do: production of system/greeting is not 1.1.0.\n"
    assert greeting.json("rollback", "greeting", "--expected", "1.1.0") == {
        "rolled_back": False,
        "deployment": None,
    }
    assert len(greeting.json("deployments", "greeting")) == 3


def test_rollback_says_which_experiments_it_paused(greeting: Shell) -> None:
    greeting.ok("promote", "greeting@1.0.0")
    greeting.ok("promote", "greeting@1.1.0")
    made = greeting.json("experiment", "create", "greeting", "--variant", "1.0.0", "--variant", "1.1.0")
    assert f"paused the experiment {made['experiment_id']}" in greeting.ok("rollback", "greeting")


def test_promote_with_expected_none_wants_nothing_live(greeting: Shell) -> None:
    greeting.ok("promote", "greeting@1.0.0", "--expected", "none")
    assert greeting.run("promote", "greeting@1.1.0", "--expected", "none").code == 4


def test_environments_are_apart(greeting: Shell) -> None:
    greeting.ok("promote", "greeting@1.0.0")
    greeting.ok("promote", "greeting@1.1.0", "--environment", "staging")
    assert greeting.json("list")[0]["staging"] == "1.1.0"
    assert len(greeting.json("deployments", "greeting")) == 2
    assert len(greeting.json("deployments", "greeting", "-e", "staging")) == 1
    assert greeting.run("promote", "greeting@1.1.0", "-e", "moon").code == 5


def test_deployments_at_a_time_tells_what_was_live_then(greeting: Shell) -> None:
    assert "was never live anywhere" in greeting.ok("deployments", "greeting")
    greeting.ok("promote", "greeting@1.0.0")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert greeting.json("deployments", "greeting", "--at", tomorrow)["version"]["version"] == "1.0.0"
    assert "system/greeting@1.0.0 was live in production" in greeting.ok(
        "deployments", "greeting", "--at", tomorrow
    )
    assert greeting.json("deployments", "greeting", "--at", "1h")["version"] is None
    assert "Nothing that still exists" in greeting.ok("deployments", "greeting", "--at", "2001-01-01")
    assert greeting.json("deployments", "greeting", "--at", tomorrow, "-e", "staging")["version"] is None
    assert greeting.run("deployments", "greeting", "--at", "yesterday").code == 5


def test_datetimes_in_json_are_iso_8601_with_an_offset(greeting: Shell) -> None:
    made = json.loads(greeting.ok("show", "greeting", "--json"))["created_at"]
    assert datetime.fromisoformat(made).tzinfo is not None


def test_new_refuses_an_empty_standard_input(shell: Shell) -> None:
    said = shell.run("new", "system/hello", given="\n")
    assert said.code == 5
    assert "standard input was empty" in said.err


def test_new_says_which_parts_of_the_version_before_are_gone(shell: Shell) -> None:
    shell.ok(
        "new", "system/hello", "--template", "Hi {{ a }}", "--default", "a=Ada", "--config", '{"model": "m"}'
    )
    said = shell.run("new", "system/hello", "--template", "Hello {{ a }}", "--json")
    assert "unlike system/hello@1.0.0 it has no config and no defaults" in said.err
