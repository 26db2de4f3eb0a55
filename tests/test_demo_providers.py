"""The demo's calls by the providers' own clients, against a server on this machine that speaks their protocols."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from promptab import InvalidInputError, MissingExtraError, Tokens
from promptab.demo import ProviderError, open_provider
from promptab.demo.answering import case_of
from promptab.demo.providers import MAX_WORDS, anthropic_tokens, openai_tokens
from tests.test_demo_command import run_promptab

pytest.importorskip("openai", reason="the extra openai is not installed")
pytest.importorskip("anthropic", reason="the extra anthropic is not installed")

OPENAI_USAGE: dict[str, Any] = {
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 100},
}
ANTHROPIC_USAGE: dict[str, Any] = {
    "input_tokens": 20,
    "output_tokens": 30,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 7,
}


class Provider:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.text: str | None = None
        """None: the customer's name where the prompt lets the model use it."""

    def reply_to(self, request: dict[str, Any], path: str) -> dict[str, Any]:
        self.asked.append(request)
        if self.status != 200:
            return {"error": {"type": "authentication_error", "message": "this key is not known here"}}
        prompt = request["system"] if path.endswith("/messages") else request["messages"][0]["content"]
        name = prompt.partition("The customer is called ")[2].partition(".")[0]
        text = self.text or (
            "Hello there." if "do not use the customer's name" in prompt else f"Hello {name}."
        )
        if path.endswith("/messages"):
            return {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": request["model"],
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": ANTHROPIC_USAGE,
            }
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            ],
            "usage": OPENAI_USAGE,
        }


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Provider, str]]:
    """A provider on loopback, with the environment pointing to it; and its address."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(provider.reply_to(request, self.path)).encode()
            self.send_response(provider.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in environment(address).items():
        monkeypatch.setenv(name, value)
    yield provider, address
    server.shutdown()
    thread.join()
    server.server_close()


def environment(address: str) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": "a-key",
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_API_KEY": "a-key",
        "ANTHROPIC_BASE_URL": address,
    }


CASE = case_of(1, 0)
PROMPT = f"The customer is called {CASE.customer}. Be kind."


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("openai", Tokens(input=20, cached_input=100, output=30, total=150)),
        ("anthropic", Tokens(input=27, cached_input=100, output=30, total=157)),
    ],
)
async def test_answer_counts_each_token_once(served: tuple[Provider, str], name: str, tokens: Tokens) -> None:
    async with open_provider(name, None) as model:
        reply = await model.answer(PROMPT, CASE)
    assert reply.tokens == tokens
    assert tokens.total == sum(part or 0 for part in (tokens.input, tokens.cached_input, tokens.output))
    assert reply.success
    assert (reply.cost, reply.rating) == (None, None)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_prompt_and_question_reach_the_model_that_was_asked_for(
    served: tuple[Provider, str], name: str
) -> None:
    async with open_provider(name, "a-model") as model:
        await model.answer(PROMPT, CASE)
    (request,) = served[0].asked
    assert request["model"] == "a-model"
    assert request["messages"][-1] == {"role": "user", "content": CASE.question}
    assert PROMPT in (request.get("system"), request["messages"][0]["content"])


@pytest.mark.parametrize(
    ("text", "success"),
    [
        (f"Dear {CASE.customer.upper()}, yes.", True),
        ("Dear customer, yes.", False),
        (" ".join([CASE.customer, *["word"] * MAX_WORDS]), False),
        (" ".join([CASE.customer, *["word"] * (MAX_WORDS - 1)]), True),
    ],
    ids=["name", "no-name", "too-long", "just-short-enough"],
)
async def test_success_is_judged_by_the_rule_that_is_told(
    served: tuple[Provider, str], text: str, *, success: bool
) -> None:
    served[0].text = text
    async with open_provider("openai", None) as model:
        reply = await model.answer(PROMPT, CASE)
    assert reply.success is success
    assert f"at most {MAX_WORDS} words" in model.success_rule


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_error_of_the_client_is_told_in_its_own_words(served: tuple[Provider, str], name: str) -> None:
    served[0].status = 401
    async with open_provider(name, None) as model:
        with pytest.raises(ProviderError, match=rf"{name}: .*401.*this key is not known here"):
            await model.answer(PROMPT, CASE)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_missing_extra_is_named(
    served: tuple[Provider, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the package is installed here; None is what an import finds where it is not
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"promptab\[{name}\]"):
        async with open_provider(name, None):
            pass


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_missing_key_names_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{name.upper()}_API_KEY", raising=False)
    with pytest.raises(InvalidInputError, match=f"{name.upper()}_API_KEY"):
        async with open_provider(name, None):
            pass


async def test_unknown_counts_stay_unknown() -> None:
    from anthropic.types import Usage  # noqa: PLC0415 - after the skip for where it is not installed
    from openai.types import CompletionUsage  # noqa: PLC0415

    usage = CompletionUsage(prompt_tokens=120, completion_tokens=30, total_tokens=150)
    assert openai_tokens(usage) == Tokens(output=30, total=150)
    assert openai_tokens(None) == Tokens()
    known = anthropic_tokens(Usage(input_tokens=20, output_tokens=30))
    assert known == Tokens(input=20, output=30, total=50)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_demo_takes_the_bad_version_back_with_a_real_client(
    served: tuple[Provider, str], tmp_path: Path, name: str
) -> None:
    done = run_promptab(
        "demo", "--provider", name, "--yes", "--json", folder=tmp_path, **environment(served[1])
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["simulated"] is False
    assert result["calls"] == len(served[0].asked) == 34
    assert result["promoted"] is None  # both versions always succeed here
    assert (result["bad_success_rate"], result["success_rate_before"]) == (0.0, 1.0)
    assert result["fall_is_shown"] is True
    assert result["rolled_back_to"] == "1.0.0"


def test_demo_with_a_refused_key_ends_without_a_traceback(
    served: tuple[Provider, str], tmp_path: Path
) -> None:
    served[0].status = 401
    done = run_promptab("demo", "--provider", "openai", "--yes", folder=tmp_path, **environment(served[1]))
    assert done.returncode == 1
    assert "this key is not known here" in done.stderr
    assert "Traceback" not in done.stderr
    assert "a-key" not in done.stderr + done.stdout
