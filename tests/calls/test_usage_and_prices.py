"""Tokens are counted once, what is unknown stays unknown, and costs are those of the price list."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import genai_prices
import openai
import pytest
from anthropic.types import Usage as AnthropicUsage
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

import promptab
from promptab import InvalidInputError, Lab, PromptVersion, Tokens
from promptab.calls import Price, PriceBook, Usage
from promptab.calls.pricing import Asked
from promptab.calls.usage import chat_usage, messages_usage, responses_usage
from tests.calls.conftest import Spoken
from tests.llm_server import Body, LlmServer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
COUNT = st.integers(0, 400_000)
MAYBE = st.none() | COUNT
WRONG: st.SearchStrategy[object] = st.sampled_from([None, "12", -1, 1.5, True, [], {}, 10**30])


def openai_usage(kind: type, names: tuple[str, str], **counts: Any) -> Any:
    """Build what the client makes of a body: without checking it."""
    construct = cast("Any", kind).construct
    prompt, completion = names
    details = {
        k: v for k, v in counts.items() if k in {"cached_tokens", "cache_write_tokens"} and v is not None
    }
    return construct(
        **{
            prompt: counts.get("prompt"),
            completion: counts.get("completion"),
            f"{prompt}_details": details,
            f"{completion}_details": {"reasoning_tokens": counts.get("reasoning")},
        }
    )


CHAT, RESPONSES = ("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")


@given(uncached=COUNT, read=COUNT, written=COUNT, output=COUNT, data=st.data())
def test_both_providers_counts_fall_into_the_same_buckets(
    uncached: int, read: int, written: int, output: int, data: st.DataObject
) -> None:
    reasoning = data.draw(st.integers(0, output))
    counts = {
        "prompt": uncached + read + written,
        "completion": output,
        "cached_tokens": read,
        "cache_write_tokens": written,
        "reasoning": reasoning,
    }
    message = AnthropicUsage.construct(
        input_tokens=uncached,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        output_tokens=output,
        output_tokens_details={"thinking_tokens": reasoning},
    )
    expected = Usage(uncached, read, written, None, None, output, reasoning)
    assert chat_usage(openai_usage(CompletionUsage, CHAT, **counts)) == expected
    assert responses_usage(openai_usage(ResponseUsage, RESPONSES, **counts)) == expected
    assert messages_usage(message) == expected
    assert expected.total == uncached + read + written + output
    tokens = expected.tokens
    assert tokens is not None
    # what an event carries adds up to the same: nothing is counted twice
    assert (
        (tokens.input or 0) + (tokens.cached_input or 0) + (tokens.output or 0)
        == tokens.total
        == expected.total
    )


@given(prompt=MAYBE, read=MAYBE, written=MAYBE, output=MAYBE)
def test_a_count_that_is_missing_is_unknown_and_never_zero(
    prompt: int | None, read: int | None, written: int | None, output: int | None
) -> None:
    usage = chat_usage(
        openai_usage(
            CompletionUsage,
            CHAT,
            prompt=prompt,
            completion=output,
            cached_tokens=read,
            cache_write_tokens=written,
        )
    )
    assert usage.output == output
    assert usage.input == prompt or prompt is None
    fits = prompt is not None and (read or 0) + (written or 0) <= prompt
    assert (usage.cache_read, usage.cache_write) == ((read, written) if fits else (None, None))
    whole = fits and read is not None and written is not None
    assert (usage.uncached is not None) == whole
    if usage.tokens is not None:
        assert usage.tokens.cached_input == usage.cache_read


def test_input_that_is_not_known_to_be_fresh_is_not_said_to_be() -> None:
    assert chat_usage(openai_usage(CompletionUsage, CHAT, prompt=120, completion=30)).tokens == Tokens(
        output=30, total=150
    )
    assert chat_usage(
        openai_usage(CompletionUsage, CHAT, prompt=120, completion=30, cached_tokens=100)
    ).tokens == Tokens(input=20, cached_input=100, output=30, total=150)
    assert Usage().tokens is None


@given(value=WRONG)
def test_what_is_no_count_is_unknown(value: object) -> None:
    assert chat_usage(openai_usage(CompletionUsage, CHAT, prompt=value, completion=value)) == Usage()
    assert messages_usage(AnthropicUsage.construct(input_tokens=value, output_tokens=value)) == Usage()
    for read in (chat_usage, responses_usage, messages_usage):
        assert read(value) == Usage()


MODELS = [
    ("openai", "gpt-4.1-mini"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-4o-2024-08-06"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-sonnet-4-5"),
]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook()


@settings(deadline=None)
@given(
    vendor_and_model=st.sampled_from(MODELS),
    uncached=COUNT,
    read=COUNT,
    written=COUNT,
    long=st.floats(0, 1),
    output=COUNT,
)
def test_the_cost_is_what_the_price_list_says_of_the_same_counts(
    book: PriceBook,
    vendor_and_model: tuple[str, str],
    uncached: int,
    read: int,
    written: int,
    long: float,
    output: int,
) -> None:
    vendor, model = vendor_and_model
    kept = int(written * long)
    usage = Usage(uncached, read, written, kept, None, output, 0)
    listed = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=kept,
            output_tokens=output,
        ),
        model,
        provider_id=vendor,
        genai_request_timestamp=NOW,
    )
    cost = book.cost(Asked(vendor, None, model), usage, NOW)
    # sums of a few floats against exact decimals
    assert cost == pytest.approx(float(listed.total_price), rel=1e-12, abs=1e-15)


def test_a_price_is_the_one_of_its_time_and_terms(book: PriceBook) -> None:
    usage = Usage(uncached=1_000_000, cache_read=0, cache_write=0, cache_write_1h=0, output=0, reasoning=0)
    flex = book.cost(Asked("openai", None, "gpt-5", (("service_tier", "flex"),)), usage, NOW)
    standard = book.cost(Asked("openai", None, "gpt-5"), usage, NOW)
    assert standard is not None
    assert flex is not None
    assert flex < standard
    before = NOW.replace(month=6)
    assert book.cost(Asked("openai", None, "gpt-5", (("service_tier", "flex"),)), usage, before) == standard


def test_where_the_request_went_decides_whose_price_it_is(book: PriceBook) -> None:
    usage = Usage(uncached=1_000_000, cache_read=0, cache_write=0, cache_write_1h=0, output=0, reasoning=0)
    at_groq = book.cost(Asked("openai", "https://api.groq.com/openai/v1/", "openai/gpt-oss-20b"), usage, NOW)
    assert at_groq is not None
    here = book.cost(Asked("openai", "http://127.0.0.1:8000/v1/", "gpt-4.1-mini"), usage, NOW)
    assert here == book.cost(Asked("openai", None, "gpt-4.1-mini"), usage, NOW)


PRICE = Price(input=2.0, output=8.0, cache_read=0.5)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(uncached=10, cache_read=10, cache_write=0, output=10), (20 + 5 + 80) / 1e6),
        # written to a cache or not, it costs the same
        (Usage(cache_read=10, unsplit=10, output=10), (20 + 5 + 80) / 1e6),
        # read from a cache or not, it does not
        (Usage(unsplit=20, output=10), None),
        (Usage(uncached=10, cache_read=10, output=10), None),
        (Usage(uncached=10, cache_read=10, cache_write=0), None),
        (Usage(), None),
    ],
    ids=["whole", "maybe written", "maybe read", "written unknown", "no output", "nothing"],
)
def test_a_cost_is_known_where_what_is_unknown_does_not_matter(usage: Usage, cost: float | None) -> None:
    assert PRICE.cost(usage) == (None if cost is None else pytest.approx(cost))


def test_reasoning_and_long_terms_are_charged_where_they_have_a_price() -> None:
    price = Price(input=1, output=2, cache_write=2, cache_write_1h=4, reasoning=5)
    usage = Usage(uncached=0, cache_read=0, cache_write=10, cache_write_1h=4, output=10, reasoning=3)
    assert price.cost(usage) == pytest.approx((6 * 2 + 4 * 4 + 7 * 2 + 3 * 5) / 1e6)
    assert price.cost(usage._replace(reasoning=None)) is None
    assert price.cost(usage._replace(cache_write_1h=None)) is None


def test_own_prices_go_before_the_list_and_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "our-own-7b: {input: 0.1, output: 0.2}\ngpt-4.1-mini: {input: 0, output: 0}\n", encoding="utf-8"
    )
    monkeypatch.setenv("PROMPTAB_PRICES", str(file))
    usage = Usage(uncached=10, cache_read=0, cache_write=0, output=10)
    book = PriceBook.of_environment()
    assert book.cost(Asked("openai", None, "our-own-7b"), usage, NOW) == pytest.approx(3e-6)
    assert book.cost(Asked("openai", None, "gpt-4.1-mini"), usage, NOW) == 0.0
    dated = Asked("openai", None, "gpt-4.1-mini-2025-04-14", alias="gpt-4.1-mini")
    assert book.cost(dated, usage, NOW) == 0.0
    listed = book.cost(dated._replace(alias=None), usage, NOW)
    assert listed is not None
    assert listed > 0.0


async def test_an_own_price_holds_for_the_dated_name_that_the_answer_bears(
    lab: Lab, reply: PromptVersion, server: LlmServer, openai_client: Any
) -> None:
    answer = {
        "id": "x",
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 10},
    }
    server.script.append(Body(json.dumps(answer).encode()))
    lab.calls.prices = PriceBook({"gpt-4.1-mini": {"input": 1, "output": 2}})
    done = await lab.complete("support_reply", client=openai_client, variables={"customer": "Ada"})
    assert done.call.answer.model == "gpt-4.1-mini-2025-04-14"
    assert done.cost == pytest.approx(30e-6)


SEARCHED: dict[str, dict[str, Any]] = {
    "chat": {
        "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"audio_tokens": 5},
        },
    },
    "responses": {
        "status": "completed",
        "output": [{"type": "web_search_call", "id": "w"}],
        "usage": {
            "input_tokens": 10,
            "output_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        },
    },
    "messages": {
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 10,
            "output_tokens": 10,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "server_tool_use": {"web_search_requests": 2},
        },
    },
}


async def test_what_is_charged_beside_tokens_leaves_the_cost_unknown(
    lab: Lab, reply: PromptVersion, server: LlmServer, spoken: Spoken
) -> None:
    server.script.append(Body(json.dumps({"model": spoken.model, **SEARCHED[spoken.api]}).encode()))
    done = await lab.complete("support_reply", **spoken.how)
    assert (done.call.status, done.usage.total, done.cost) == ("ok", 20, None)


def test_what_a_request_costs_beside_its_tokens_is_counted_once(book: PriceBook) -> None:
    at_perplexity = Asked("openai", "https://api.perplexity.ai/", "sonar")
    usage = Usage(uncached=1_000, cache_read=0, cache_write=0, cache_write_1h=0, output=1_000, reasoning=0)
    listed = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=1_000, output_tokens=1_000),
        "sonar",
        provider_id="perplexity",
        genai_request_timestamp=NOW,
    )
    assert book.cost(at_perplexity, usage, NOW) == pytest.approx(float(listed.total_price))
    assert Price(input=1, output=1, request=0.5).cost(usage) == pytest.approx(0.502)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("m: {input: 1}", "m.output"),
        ("m: {input: 1, output: -2}", "m.output"),
        ("m: {input: 1, output: 1, cached: 1}", "cached"),
        ("m: 3", "mapping"),
        ("[1]", "mapping"),
        ("{", "YAML"),
    ],
)
async def test_a_file_of_prices_that_is_wrong_is_refused_before_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, named: str
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PROMPTAB_PRICES", str(file))
    async with promptab.open("sqlite:///:memory:") as lab:
        await lab.versions.create_version("p", "system", "Hi.")
        choice = await lab.choose("p")
        with pytest.raises(InvalidInputError, match=named):
            await choice.call().begin()


async def test_a_wrong_file_of_prices_is_no_failure_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_PRICES", str(tmp_path / "nowhere.yaml"))
    async with promptab.open("sqlite:///:memory:") as lab, openai.AsyncOpenAI(api_key="k") as client:
        version = await lab.versions.create_version("p", "system", "Hi.", config={"model": "m"})
        with pytest.raises(InvalidInputError, match="PROMPTAB_PRICES"):
            await lab.complete("p", client=client)
        assert (await lab.metrics.get_metrics(version.version_id)).total_events == 0
