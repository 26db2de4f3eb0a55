"""`promptab import` and `promptab export`, on real files and a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from promptab.cli.exit_codes import ExitCode
from tests.command_line import Shell

GREETING = """\
---
model: m
input:
  schema:
    name: string
variant: formal
---
{{> tone}}
{{role "user"~}}
Greet {{name}}.
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def greeting(tmp_path: Path) -> Path:
    (tmp_path / "greeting.prompt").write_text(GREETING)
    (tmp_path / "_tone.prompt").write_text("Be {{> manner}}.\n")
    (tmp_path / "_manner.prompt").write_text("{{#if kind}}kind{{else}}brief{{/if}}")
    return tmp_path / "greeting.prompt"


@pytest.mark.usefixtures("greeting")
def test_a_file_is_imported_after_its_partials(shell: Shell) -> None:
    said = shell.json("import", "greeting.prompt")
    assert [(each["prompt"], each["version"], each["created"]) for each in said["prompts"]] == [
        ("user/manner", "1.0.0", True), ("user/tone", "1.0.0", True), ("message/greeting", "1.0.0", True),
    ]  # fmt: skip
    assert said["prompts"][2]["notes"] == ["variant: kept in the metadata, and without effect here"]
    assert shell.ok("render", "message/greeting", "--var", "name=Ada", "--var", "kind:=true") == (
        "[user]\nBe kind.\n\n\n[user]\nGreet Ada.\n"
    )


@pytest.mark.usefixtures("greeting")
def test_a_second_run_makes_nothing_and_a_change_makes_a_version(shell: Shell, greeting: Path) -> None:
    shell.ok("import", "greeting.prompt")
    assert "message/greeting@1.0.0 already" in shell.ok("import", "greeting.prompt")
    greeting.write_text(GREETING.replace("Greet", "Welcome"))
    again = shell.json("import", "greeting.prompt")["prompts"]
    assert [(each["version"], each["created"]) for each in again] == [
        ("1.0.0", False),
        ("1.0.0", False),
        ("1.0.1", True),
    ]


@pytest.mark.usefixtures("greeting")
def test_a_dry_run_shows_the_translation_and_makes_no_store(shell: Shell) -> None:
    said = shell.ok("import", "greeting.prompt", "--dry-run")
    assert "greeting.prompt (dotprompt) would be message/greeting" in said
    assert '{% include "user/tone" %}' in said
    assert not (shell.folder / "promptab.db").exists()
    document = shell.json("import", "greeting.prompt", "--dry-run")
    assert (document["dry_run"], document["prompts"][2]["version"]) == (True, None)
    assert document["prompts"][2]["source"]["messages"][1] == {"role": "user", "content": "Greet {{ name }}."}


def test_a_missing_partial_is_told_and_refused_by_the_store(shell: Shell) -> None:
    (shell.folder / "a.prompt").write_text("---\nconfig: {}\n---\n{{> gone}}")
    note = shell.json("import", "a.prompt", "--dry-run")["prompts"][0]["notes"][0]
    assert note == "the partial gone is not beside the file: it includes the prompt user/gone of the store"
    said = shell.run("import", "a.prompt")
    assert said.code == ExitCode.INVALID_INPUT
    assert "user/gone" in said.err


def test_a_folder_of_dataknobs_is_imported_whole(shell: Shell) -> None:
    for path, text in {
        "system/review.yaml": "template: 'Review {{code}}'",
        "user/ask.json": '{"template": "Ask {{what}}"}',
        "messages/chat.yml": "messages: [{role: user, content: 'Hi {{name}}'}]",
        "rag/docs.yaml": "adapter_name: docs\nquery: q",
        "system/README.md": "no prompt",
    }.items():
        (shell.folder / "theirs" / path).parent.mkdir(parents=True, exist_ok=True)
        (shell.folder / "theirs" / path).write_text(text)
    said = shell.json("import", "theirs")
    assert [each["prompt"] for each in said["prompts"]] == [
        "system/review", "user/ask", "message/chat", "config/docs",
    ]  # fmt: skip
    assert shell.ok("render", "user/ask", "--var", "what=why") == "Ask why"


def test_of_a_folder_with_a_broken_file_nothing_is_imported(shell: Shell) -> None:
    theirs = shell.folder / "theirs"
    theirs.mkdir()
    (theirs / "a.yaml").write_text("prompt: Hi $name")
    (theirs / "b.yaml").write_text("model: m\nprompt: costs $5")
    (theirs / "c.yaml").write_text("nothing: known")
    said = shell.run("import", "theirs")
    assert said.code == ExitCode.INVALID_INPUT
    assert "theirs/b.yaml:2: a $ that begins no variable" in said.err
    assert "theirs/c.yaml" in said.err
    assert not (shell.folder / "promptab.db").exists()


def test_name_type_and_format_can_be_given(shell: Shell) -> None:
    (shell.folder / "x.prompt").write_text("---\nmodel: m\n---\nHi {{name}}")
    said = shell.run("import", "x.prompt", "--json")
    assert said.code == ExitCode.INVALID_INPUT
    assert "dotprompt" in said.err
    assert "--format" in said.err
    shell.ok("import", "x.prompt", "--format", "prompty", "--name", "hello", "--type", "user")
    assert shell.ok("render", "user/hello", "--var", "name=Ada") == "Hi Ada"
    assert shell.run("import", "x.prompt", "--format", "xml").code == ExitCode.INVALID_INPUT
    assert shell.run("import", "x.prompt", "--type", "poem").code == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("path", ["gone.prompt", "empty", "link.prompt"])
def test_what_is_no_file_is_refused(shell: Shell, path: str) -> None:
    (shell.folder / "empty").mkdir()
    (shell.folder / "secret.txt").write_text("prompt: secret")
    (shell.folder / "link.prompt").symlink_to(shell.folder / "secret.txt")
    said = shell.run("import", path)
    assert said.code == ExitCode.INVALID_INPUT
    assert "secret" not in said.err.replace("secret.txt", "")


def test_a_partial_outside_of_the_folder_is_never_read(shell: Shell) -> None:
    (shell.folder / "inner").mkdir()
    (shell.folder / "_up.prompt").write_text("secret")
    (shell.folder / "inner" / "a.prompt").write_text("---\nconfig: {}\n---\n{{> ../_up}}")
    said = shell.run("import", "inner/a.prompt", "--dry-run")
    assert said.code == ExitCode.INVALID_INPUT
    assert "inner/a.prompt:4" in said.err
    assert "secret" not in said.out + said.err


def test_a_version_is_written_for_every_tool_and_read_again(shell: Shell) -> None:
    shell.ok("new", "system/greeting", "-t", "Hello {{ name }}!")
    for form in ("dotprompt", "prompty", "github", "dataknobs", "llm"):
        document = shell.json("export", "system/greeting", "--format", form, "--output", "out")
        assert Path(document["written"]).read_text() == document["text"]
        said = shell.json("import", document["written"], "--format", form, "--type", "system", "--dry-run")
        assert said["prompts"][0]["source"]["template"] == "Hello {{ name }}!"
    assert shell.ok("export", "system/greeting@1.0.0", "--format", "llm") == "system: Hello $name!\n"


def test_includes_are_written_as_they_are_pinned(shell: Shell) -> None:
    shell.ok("new", "user/tone", "-t", "{% set x = 'kind' %}Be {{ x }}, {{ who }}. {", "--default", "who=you")
    shell.ok(
        "new", "system/greeting", "-t", "{% include 'user/tone' %}{{ name }} {%- include 'user/tone' -%} ."
    )
    shell.ok("new", "user/tone", "-t", "Be rude.")
    expected = shell.ok("render", "system/greeting", "--var", "name=Ada")
    text = shell.ok("export", "system/greeting", "--format", "prompty", "--output", "out")
    assert "system/greeting@1.0.0 is in out/greeting.prompty" in text
    shell.ok("import", "out/greeting.prompty", "--name", "back")
    assert (
        shell.ok("render", "system/back", "--var", "name=Ada")
        == expected
        == "Be kind, you. {AdaBe kind, you. {."
    )


def test_what_is_left_out_is_told_apart_from_the_file(shell: Shell) -> None:
    shell.ok("new", "user/ask", "-t", "Ask {{ what }}", "--default", "what=why", "--config", '{"model": "m"}')
    said = shell.run("export", "user/ask", "--format", "github")
    assert yaml.safe_load(said.out)["messages"] == [{"role": "user", "content": "Ask {{what}}"}]
    assert said.err == "left out: defaults: GitHub's format has no place for it\n"
    assert shell.json("export", "user/ask", "--format", "github")["lost"] == [
        "defaults: GitHub's format has no place for it"
    ]


def test_a_template_that_the_format_cannot_say_is_refused_and_nothing_written(shell: Shell) -> None:
    shell.ok("new", "user/ask", "-t", "Ask\n{{ what | upper }}")
    said = shell.run("export", "user/ask", "--format", "dotprompt", "--output", "out")
    assert said.code == ExitCode.INVALID_INPUT
    assert "user/ask, line 2: Handlebars cannot say the filter `upper`" in said.err
    assert not (shell.folder / "out").exists()
    assert shell.run("export", "user/gone", "--format", "llm").code == ExitCode.NOT_FOUND


def test_a_folder_that_cannot_be_made_is_refused(shell: Shell) -> None:
    shell.make_greeting()
    (shell.folder / "out").write_text("a file")
    said = shell.run("export", "system/greeting", "--format", "llm", "--output", "out")
    assert said.code == ExitCode.INVALID_INPUT
    assert (shell.folder / "out").read_text() == "a file"


def test_test_data_become_cases_of_the_store_and_leave_it_again(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "hi.prompt.yml").write_text(
        "name: hi\nmodel: m\nmessages:\n  - {role: user, content: 'Hi {{x}}'}\n"
        "testData:\n  - {x: Ada}\nevaluators:\n  - {name: n, string: {contains: Ada}}\n"
    )
    said = shell.json("import", "hi.prompt.yml")
    assert said["prompts"][0]["notes"] == []
    (case,) = said["prompts"][0]["source"]["tests"]
    assert (case["variables"], case["expect"]["contains"]) == ({"x": "Ada"}, ["Ada"])
    exported = yaml.safe_load(shell.ok("export", "user/hi", "--format", "github"))
    assert exported["testData"] == [{"x": "Ada"}]
    lost = shell.json("export", "user/hi", "--format", "prompty")["lost"]
    assert lost[0] == "tests: Prompty has no place for cases"
