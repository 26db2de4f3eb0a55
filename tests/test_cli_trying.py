"""`promptab test` and `promptab promote --gate`, against a provider on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptab.cli.exit_codes import ExitCode
from promptab.cli.trying import _provider_of
from promptab.errors import InvalidInputError
from tests.command_line import Shell, in_new_process
from tests.contract.records import a_version
from tests.llm_server import Asked, LlmServer, running_beside

pytest.importorskip("openai", reason="the extra openai is not installed")
pytest.importorskip("anthropic", reason="the extra anthropic is not installed")

FILE = """\
---
model: gpt-4.1-mini
config: {max_tokens: 40}
tests:
  - name: named
    variables: {customer: Ada}
    expect: {contains: Ada}
  - name: short
    variables: {customer: Bo}
    expect: {regex: '\\A.{1,60}\\Z', python: 'shop_checks:polite'}
---
Help {{ customer }}.
"""
REPLY = "system/reply"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    shell = Shell(tmp_path, monkeypatch)
    write(shell, FILE.replace(", python: 'shop_checks:polite'", ""))
    shell.ok("sync", "push")
    return shell


@pytest.fixture
def server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    def answer(asked: Asked) -> str:
        return f"Dear {asked.messages[-1][1].removeprefix('Help ')}"

    with running_beside(LlmServer(answer=answer)) as server:
        for name, arguments in (("OPENAI", server.openai), ("ANTHROPIC", server.anthropic)):
            monkeypatch.setenv(f"{name}_API_KEY", arguments["api_key"])
            monkeypatch.setenv(f"{name}_BASE_URL", arguments["base_url"])
        yield server


def write(shell: Shell, text: str) -> None:
    folder = shell.folder / "prompts" / "system"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reply.md").write_text(text)


def test_a_version_whose_cases_all_pass(shell: Shell, server: LlmServer) -> None:
    out = shell.ok("test", REPLY)
    assert "2 of 2 cases passed on system/reply@1.0.0" in out
    assert "2 calls, $0.000" in out
    assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}


def test_a_step_back_is_shown_and_the_gate_refuses_it(shell: Shell, server: LlmServer) -> None:
    shell.ok("test", REPLY)
    shell.ok("promote", f"{REPLY}@1.0.0", "--gate")
    write(shell, FILE.replace("Help {{ customer }}.", "Help the {{ 'customer' if customer else '' }}."))
    shell.ok("sync", "push")
    said = shell.run("test", REPLY, "--version", "1.0.1", "--allow-python")
    assert said.code == ExitCode.INVALID_INPUT
    assert "shop_checks" in said.err
    (shell.folder / "shop_checks.py").write_text(
        "def polite(answer):\n    return answer.startswith('Dear')\n"
    )
    said = shell.run("test", REPLY, "--allow-python")
    assert said.code == ExitCode.CHECK_FAILED
    assert "named" in said.out
    assert "does not contain 'Ada'" in said.out
    assert "passed on 1.0.0, and fails now: named" in said.out
    refused = shell.run("promote", f"{REPLY}@1.0.1", "--gate", "--json")
    assert refused.code == ExitCode.CHECK_FAILED
    error = json.loads(refused.err)["error"]
    assert error["kind"] == "gate"
    assert error["cases"] == ["named"]
    assert shell.json("deployments", REPLY)[-1]["version"] == "1.0.0"


def test_a_program_reads_what_was_found(shell: Shell, server: LlmServer) -> None:
    server.answer = lambda asked: "No."
    said = shell.run("test", f"{REPLY}@1.0.0", "--json")
    assert said.code == ExitCode.CHECK_FAILED
    assert said.err == ""
    document = json.loads(said.out)
    assert (document["all_passed"], document["steps_back"], document["not_run"]) == (False, [], [])
    assert (document["version"], document["live"], document["calls"]) == ("1.0.0", None, 2)
    (named, _) = document["cases"]
    assert (named["name"], named["result"]["status"]) == ("named", "failed")
    assert named["result"]["reasons"] == ["does not contain 'Ada'"]


def test_a_limit_of_cost_says_what_was_not_run(shell: Shell, server: LlmServer) -> None:
    said = shell.run("test", REPLY, "--max-cost", "0.000001")
    assert said.code == ExitCode.CHECK_FAILED
    assert "2 cases not run: the cost could have exceeded the limit" in said.out
    assert server.asked == []
    assert "2 of 2" in shell.ok("test", REPLY, "--max-cost", "1")


def test_the_provider_is_asked_that_was_named(shell: Shell, server: LlmServer) -> None:
    shell.ok("test", REPLY, "--provider", "anthropic", "--model", "claude-haiku-4-5", "--max-tokens", "7")
    assert {(asked.path, asked.body["max_tokens"]) for asked in server.asked} == {("/v1/messages", 7)}
    shell.ok("test", REPLY, "--model", "claude-haiku-4-5", "--against", "none", "--concurrency", "1")
    assert server.asked[-1].path == "/v1/messages"


@pytest.mark.parametrize(
    ("config", "model", "found"),
    [
        ({"model": "gpt-4.1-mini"}, None, "openai"),
        ({"model": "o3"}, None, "openai"),
        ({"model": "anthropic/claude-haiku-4-5"}, None, "anthropic"),
        ({"model": "my-own", "provider": "openai"}, None, "openai"),
        ({"model": "gpt-5", "provider": "openai"}, "claude-haiku-4-5", "anthropic"),
        ({"model": "my-own"}, None, None),
        ({"model": "ollama-3"}, None, None),
        ({}, None, None),
    ],
)
def test_the_provider_is_told_by_configuration_or_model(
    config: dict[str, str], model: str | None, found: str | None
) -> None:
    version = a_version(config=config)
    if found is not None:
        assert _provider_of(version, model) == found
        return
    with pytest.raises(InvalidInputError, match=r"--provider is not given: openai, anthropic; "):
        _provider_of(version, model)


def test_without_a_key_the_error_says_what_to_do(shell: Shell) -> None:
    said = shell.run("test", REPLY)
    assert said.code == ExitCode.INVALID_INPUT
    assert "OPENAI_API_KEY" in said.err
    assert "export your key of openai" in said.err
    said = shell.run("test", REPLY, "--provider", "google")
    assert "one of openai, anthropic" in said.err


def test_what_there_is_nothing_to_do_about_has_its_exit_code(shell: Shell, server: LlmServer) -> None:
    assert shell.run("test", "system/nobody").code == ExitCode.NOT_FOUND
    assert shell.run("test", f"{REPLY}@9.0.0").code == ExitCode.NOT_FOUND
    assert shell.run("test", f"{REPLY}@1.0.0", "--version", "1.0.0").code == ExitCode.INVALID_INPUT
    shell.ok("new", "system/bare", "-t", "Hi", "--config", '{"model": "gpt-4.1-mini"}')
    said = shell.run("test", "system/bare")
    assert said.code == ExitCode.WRONG_STATE
    assert "declare some under `tests:`" in said.err
    assert shell.run("promote", "system/bare@1.0.0", "--gate").code == ExitCode.CHECK_FAILED
    assert server.asked == []


def test_the_installed_command_does_the_same(shell: Shell, server: LlmServer) -> None:
    environment = {"OPENAI_API_KEY": "a-key", "OPENAI_BASE_URL": server.openai["base_url"]}
    said = in_new_process(shell.folder, "test", REPLY, environment=environment)
    assert (said.code, said.err) == (0, "")
    assert "2 of 2 cases passed" in said.out
