"""Bad input is refused with the field, the value and the bound, and not one row of the database changes."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from promptab import (
    InvalidInputError,
    Lab,
    NotFoundError,
    PromptMetrics,
    PromptVariant,
    StateError,
    TemplateError,
    TemplateLimitError,
)

A, B = "1.0.0", "1.1.0"
UNKNOWN = str(uuid.UUID(int=9))
KNOWN = str(uuid.UUID(int=1))
LONG = "x" * 100_000

Call = Callable[[Lab], Awaitable[object]]


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def rows(tmp_path: Path) -> list[str]:
    """Every row of every table, read beside the library."""
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        return list(connection.iterdump())


@pytest.fixture
async def furnished(lab: Lab) -> Lab:
    """One prompt with two versions, one of them live, a running experiment with a unit, and an event."""
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", "Hello {{ name }}.", number, tags=["eu"])
    live = await lab.versions.create_version("live", "system", "Hi.", A, status="production")
    await lab.experiments.create_experiment("greeting", "system", [PromptVariant(A), PromptVariant(B)])
    await (await lab.choose("greeting", user_id="ada")).record(success=True)
    await lab.metrics.record_event(live.version_id, success=False)
    await lab.store.flush()
    return lab


async def refused(furnished: Lab, tmp_path: Path, call: Call, error: type[Exception]) -> Exception:
    before = rows(tmp_path)
    with pytest.raises(error) as refusal:
        await call(furnished)
    await furnished.store.flush()
    assert rows(tmp_path) == before
    return refusal.value


def creating(**fields: Any) -> Call:
    given = {"name": "new", "prompt_type": "system", "template": "Hello.", **fields}
    return lambda lab: lab.versions.create_version(**given)


def experimenting(**fields: Any) -> Call:
    given = {
        "name": "new",
        "prompt_type": "system",
        "variants": [PromptVariant(A), PromptVariant(B)],
        **fields,
    }
    return lambda lab: lab.experiments.create_experiment(**given)


def recording(**fields: Any) -> Call:
    given = {"version_id": KNOWN, **fields}
    return lambda lab: lab.metrics.record_event(**given)


def reweighting(first: Any, second: Any = 1.0) -> Call:
    return lambda lab: lab.experiments.update_weights("greeting", {A: first, B: second})


def weighted(weight: Any) -> Call:
    """A variant is refused as it is made, before there is an experiment to hold it."""

    async def call(lab: Lab) -> object:
        variants = [PromptVariant(A, weight), PromptVariant(B)]
        return await lab.experiments.create_experiment("new", "system", variants)

    return call


class Calling(BaseModel):
    """A model with a field that JSON cannot hold."""

    back: Callable[[int], int]


INVALID: dict[str, tuple[Call, str, str]] = {
    "name empty": (creating(name=""), "name", "''"),
    "name over-long": (creating(name=LONG), "name", "100000 characters"),
    "name with a control character": (creating(name="a\nb"), "name", r"'a\nb'"),
    "name that climbs": (creating(name="../secrets"), "name", "'../secrets'"),
    "name with a space": (creating(name="my prompt"), "name", "'my prompt'"),
    "name that is no text": (creating(name=7), "name", "7"),
    "type unknown": (creating(prompt_type="assistant"), "prompt_type", "'assistant'"),
    "version malformed": (creating(version="1.0"), "version", "'1.0'"),
    "version with a v": (creating(version="v1.0.0"), "version", "'v1.0.0'"),
    "version with a leading zero": (creating(version="1.02.0"), "version", "'1.02.0'"),
    "version over-long": (creating(version="1.0." + "9" * 50_000), "version", "characters)"),
    "bump unknown": (creating(bump="huge"), "bump", "'huge'"),
    "status unknown": (creating(status="live"), "status", "'live'"),
    "tag that reads as a version": (creating(tags=["1.0.0"]), "tags", "'1.0.0'"),
    "tag latest": (creating(tags=["latest"]), "tags", "'latest'"),
    "author with a control character": (creating(created_by="A\x1b[0m"), "created_by", "U+001B"),
    "parent malformed": (creating(parent_version="1.0.0"), "parent_version", "'1.0.0'"),
    "template missing": (creating(template=None), "template", "None"),
    "template of a model": (creating(prompt_type="model"), "template", "'Hello.'"),
    "messages of a text prompt": (
        creating(template=[{"role": "user", "content": "Hi."}]),
        "prompt_type",
        "'system'",
    ),
    "role unknown": (
        creating(prompt_type="message", template=[{"role": "root", "content": "Hi."}]),
        "template[0].role",
        "'root'",
    ),
    "metadata not finite": (creating(metadata={"score": math.nan}), "metadata.score", "nan"),
    "metadata that is no JSON": (creating(metadata={"when": {1, 2}}), "metadata.when", "{1, 2}"),
    "config over-large": (creating(config={"a": LONG}), "config", "characters of JSON"),
    "validation that is no schema": (
        creating(validation={"properties": {"a": {"type": "strin"}}}),
        "validation.properties.a.type",
        "'strin'",
    ),
    "validation by a model that JSON cannot hold": (
        creating(validation=Calling),
        "validation",
        "CallableSchema",
    ),
    "experiment name empty": (experimenting(name=""), "name", "''"),
    "experiment name with a control character": (experimenting(name="a\x00"), "name", "U+0000"),
    "experiment name over-long": (experimenting(name=LONG), "name", "100000 characters"),
    "weight NaN": (weighted(math.nan), "variants[1.0.0].weight", "nan"),
    "weight infinite": (weighted(math.inf), "variants[1.0.0].weight", "inf"),
    "weight negative": (weighted(-0.5), "variants[1.0.0].weight", "-0.5"),
    "weight zero at creation": (weighted(0), "variants[1.0.0].weight", "0"),
    "weight that is no number": (weighted("half"), "variants[1.0.0].weight", "'half'"),
    "split NaN": (experimenting(traffic_split={A: math.nan, B: 1.0}), "weights[1.0.0]", "nan"),
    "split zero": (experimenting(traffic_split={A: 0.0, B: 1.0}), "weights[1.0.0]", "0.0"),
    "variant that is no variant": (
        experimenting(variants=[PromptVariant(A), "1.1.0"]),
        "variants",
        "'1.1.0'",
    ),
    "variant with an unknown field": (
        experimenting(variants=[{"version": A, "wieght": 1}] * 2),
        "variants",
        "wieght",
    ),
    "traffic over 1": (experimenting(traffic=1.01), "traffic", "1.01"),
    "traffic NaN": (experimenting(traffic=math.nan), "traffic", "nan"),
    "new weights NaN": (reweighting(math.nan), "weights[1.0.0]", "nan"),
    "new weights infinite": (reweighting(math.inf), "weights[1.0.0]", "inf"),
    "new weights negative": (reweighting(-1), "weights[1.0.0]", "-1"),
    "new weights all zero": (reweighting(0, 0), "weights", "0"),
    "lead negative": (
        lambda lab: lab.experiments.update_weights("greeting", {A: 1, B: 1}, lead_seconds=-1),
        "lead_seconds",
        "-1",
    ),
    "unit empty": (lambda lab: lab.experiments.assign("greeting", ""), "user_id", "''"),
    "unit over-long": (lambda lab: lab.experiments.assign("greeting", LONG), "user_id", "100000 characters"),
    "unit with a control character": (
        lambda lab: lab.experiments.assign("greeting", "a\x07"),
        "user_id",
        "U+0007",
    ),
    "unit that is a number with a fraction": (
        lambda lab: lab.experiments.assign("greeting", 1.5),  # type: ignore[arg-type]
        "user_id",
        "1.5",
    ),
    "rating below 1": (recording(user_rating=0.99), "user_rating", "0.99"),
    "rating above 5": (recording(user_rating=5.01), "user_rating", "5.01"),
    "rating NaN": (recording(user_rating=math.nan), "user_rating", "nan"),
    "response time negative": (recording(response_time=-0.1), "response_time", "-0.1"),
    "response time infinite": (recording(response_time=math.inf), "response_time", "inf"),
    "cost that is no number": (recording(cost="free"), "cost", "'free'"),
    "success that is no truth value": (recording(success="yes"), "success", "'yes'"),
    "tokens negative": (recording(tokens=-1), "tokens", "-1"),
    "tokens that are no count": (recording(tokens="many"), "tokens", "'many'"),
    "tokens with a fraction": (recording(tokens=1.5), "tokens", "1.5"),
    "tokens of an unknown part": (recording(tokens={"reasoning": 3}), "tokens", "'reasoning'"),
    "tokens of which there are less than their parts": (
        recording(tokens={"input": 10, "output": 5, "total": 12}),
        "tokens.total",
        "12",
    ),
    "metric NaN": (recording(metrics={"resolved": math.nan}), "metrics[resolved]", "nan"),
    "metric infinite": (recording(metrics={"resolved": -math.inf}), "metrics[resolved]", "-inf"),
    "metric with a bad name": (recording(metrics={"my metric": 1}), "metrics", "'my metric'"),
    "metric that has its own argument": (recording(metrics={"cost": 1}), "metrics", "'cost'"),
    "metrics too many": (recording(metrics={f"m{n}": 1 for n in range(65)}), "metrics", "at most 64"),
    "version id malformed": (recording(version_id="1.0.0"), "version_id", "'1.0.0'"),
    "event id malformed": (recording(event_id="first"), "event_id", "'first'"),
    "timestamp that is no time": (recording(timestamp="now"), "timestamp", "'now'"),
    "variant unknown": (
        recording(experiment_id="greeting", variant="9.9.9", user_id="ada"),
        "variant",
        "'9.9.9'",
    ),
    "variant without experiment": (recording(variant=A, user_id="ada"), "variant", "'1.0.0'"),
    "result not finite": (
        lambda lab: lab.metrics.record_result("greeting", "revenue", math.inf, user_id="ada"),
        "metric_value",
        "inf",
    ),
    "holdout over 1": (lambda lab: lab.experiments.set_holdout("global", 1.5), "share", "1.5"),
    "session empty": (lambda lab: lab.experiments.alias("", "ada"), "session_id", "''"),
    "limit negative": (lambda lab: lab.metrics.get_events(KNOWN, limit=-1), "limit", "-1"),
    "confidence 1": (lambda lab: lab.metrics.compare("greeting", confidence=1.0), "confidence", "1.0"),
    "template that is no text": (creating(template=123), "template", "123"),
    "template of bytes": (creating(template=b"Hello."), "template", "b'Hello.'"),
    "template that is one message": (
        creating(prompt_type="message", template={"role": "user", "content": "Hi."}),
        "template",
        "{'role': 'user', 'content': 'Hi.'}",
    ),
    "template over-long": (creating(template="\x00" * 100_001), "template", "source_chars"),
    "tags that are a number": (creating(tags=5), "tags", "5"),
    "tags None": (creating(tags=None), "tags", "None"),
    "tags that are one tag": (creating(tags="eu"), "tags", "write a list"),
    "metadata that is a list": (creating(metadata=[]), "metadata", "[]"),
    "defaults that are a text": (creating(defaults=""), "defaults", "''"),
    "config that is a list": (creating(config=[]), "config", "[]"),
    "bump that is a list": (creating(bump=["patch"]), "bump", "['patch']"),
    "expected that is a number": (creating(expected=5), "expected", "5"),
    "version None": (lambda lab: lab.versions.get_version("live", "system", None), "version", "None"),  # type: ignore[arg-type]
    "version that is a number": (
        lambda lab: lab.versions.get_version("live", "system", 1.0),  # type: ignore[arg-type]
        "version",
        "1.0",
    ),
    "listed tags that are a number": (lambda lab: lab.versions.list_versions(tags=5), "tags", "5"),  # type: ignore[arg-type]
    "listed tags that are lists": (lambda lab: lab.versions.list_versions(tags=[[]]), "tags", "[]"),  # type: ignore[list-item]
    "listed name that is no text": (lambda lab: lab.versions.list_versions("\ud800"), "name", "ud800"),
    "tag that is a list": (lambda lab: lab.versions.tag_version(KNOWN, ["eu"]), "tag", "['eu']"),  # type: ignore[arg-type]
    "promotion that expects a list": (
        lambda lab: lab.versions.promote(KNOWN, expected=["1.0.0"]),  # type: ignore[arg-type]
        "expected",
        "['1.0.0']",
    ),
    "metrics that are a list": (recording(metrics=["a"]), "metrics", "write a dict"),
    "metrics that are a number": (recording(metrics=5), "metrics", "5"),
    "metrics that are no number": (recording(metrics={5: 1}), "metrics", "5"),
    "metric over-large": (recording(metrics={"m": 1.1e18}), "metrics[m]", "from -1e+18 to 1e+18"),
    "metric that is a quantile": (
        recording(metrics={"p95_response_time": 1}),
        "metrics",
        "record response_time",
    ),
    "metric that is an alias": (recording(metrics={"user_rating": 1}), "metrics", "argument user_rating"),
    "response time over-large": (recording(response_time=1e19), "response_time", "from 0 to 1e+18"),
    "cost over-large": (recording(cost=1e308), "cost", "from 0 to 1e+18"),
    "tokens over-large": (recording(tokens=10**12 + 1), "tokens", "1000000000000"),
    "tokens of mixed parts": (recording(tokens={5: 1, "reasoning": 2}), "tokens", "5"),
    "metadata of an event that is a list": (recording(metadata=[]), "metadata", "[]"),
    "timestamp of another age": (
        recording(timestamp=datetime(1, 1, 1, tzinfo=UTC)),
        "timestamp",
        "from the year 1900 up to 2200",
    ),
    "event id malformed and a variant that is new to the unit": (
        recording(experiment_id="greeting", variant=B, user_id="new", event_id="first"),
        "event_id",
        "'first'",
    ),
    "result over-large": (
        lambda lab: lab.metrics.record_result("greeting", "revenue", -1e19, user_id="ada"),
        "metric_value",
        "from -1e+18 to 1e+18",
    ),
    "result that is a quantile": (
        lambda lab: lab.metrics.record_result("greeting", "p95_response_time", 1.0, user_id="ada"),
        "metric_name",
        "record response_time",
    ),
    "result that is an error rate": (
        lambda lab: lab.metrics.record_result("greeting", "error_rate", 1.0, user_id="ada"),
        "metric_name",
        "record success",
    ),
    "session over-long": (
        lambda lab: lab.metrics.record_result("greeting", "revenue", 1.0, session_id="s" * 249),
        "session_id",
        "1 to 248 characters",
    ),
    "compared ids None": (lambda lab: lab.metrics.compare_variants(None), "version_ids", "write a list"),  # type: ignore[arg-type]
    "compared id that is a number": (
        lambda lab: lab.metrics.compare_variants([5]),  # type: ignore[list-item]
        "version_ids",
        "5",
    ),
    "summed ids that are one id": (
        lambda lab: lab.metrics.get_summary(KNOWN),
        "version_ids",
        "write a list",
    ),
    "ranked ids that are one id": (
        lambda lab: lab.metrics.get_top_versions(KNOWN),
        "version_ids",
        "write a list",
    ),
    "ranking by a quantile": (
        lambda lab: lab.metrics.get_top_versions([KNOWN], "p95_response_time"),
        "metric",
        "record response_time",
    ),
    "ranking by no text": (
        lambda lab: lab.metrics.get_top_versions([], ["cost"]),  # type: ignore[arg-type]
        "metric",
        "['cost']",
    ),
    "confidence that is no number": (
        lambda lab: lab.metrics.compare("greeting", confidence="x"),  # type: ignore[arg-type]
        "confidence",
        "'x'",
    ),
    "range malformed": (
        lambda lab: lab.versions.get_version("live", "system", "^1.x.y"),
        "range",
        "'^1.x.y'",
    ),
}


@pytest.mark.parametrize(("call", "field", "shown"), INVALID.values(), ids=INVALID.keys())
async def test_bad_input_is_refused_and_changes_nothing(
    furnished: Lab, tmp_path: Path, call: Call, field: str, shown: str
) -> None:
    error = await refused(furnished, tmp_path, call, InvalidInputError)
    assert isinstance(error, InvalidInputError)
    assert error.field == field
    message = str(error)
    assert message.startswith(f"{field}: ")
    assert " is not " in message or isinstance(error, TemplateLimitError)
    assert shown in message
    assert len(message) < 1_000


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{ name", 1),
        ("Hello\n{% if x %}", 2),
        ("\n\n{{ }}", 3),
        ("a\nb {% frobnicate %}", 2),
        ("a\n{{ x.__class__ }}", 2),
        ("a\nb\x00", 2),
        ("a\n\n\ud800", 3),
    ],
)
async def test_a_template_that_does_not_parse_is_refused_with_its_line(
    furnished: Lab, tmp_path: Path, template: str, line: int
) -> None:
    error = await refused(furnished, tmp_path, creating(template=template), TemplateError)
    assert isinstance(error, TemplateError)
    assert error.line == line
    assert f"line {line}" in str(error)


UNKNOWN_IDS: dict[str, Call] = {
    "tag": lambda lab: lab.versions.tag_version(UNKNOWN, "eu"),
    "untag": lambda lab: lab.versions.untag_version(UNKNOWN, "eu"),
    "status": lambda lab: lab.versions.update_status(UNKNOWN, "archived"),
    "promote": lambda lab: lab.versions.promote(UNKNOWN),
    "parent": creating(parent_version=UNKNOWN),
    "weights": lambda lab: lab.experiments.update_weights(UNKNOWN, {A: 1}),
    "experiment status": lambda lab: lab.experiments.stop(UNKNOWN),
    "override": lambda lab: lab.experiments.set_override(UNKNOWN, "ada", A),
    "assign": lambda lab: lab.experiments.assign(UNKNOWN, "ada"),
    "result": lambda lab: lab.metrics.record_result(UNKNOWN, "revenue", 1.0, user_id="ada"),
    "event of an experiment": recording(experiment_id=UNKNOWN),
    "variant's version": experimenting(name="greeting", variants=[PromptVariant(A), PromptVariant("7.7.7")]),
}


@pytest.mark.parametrize("call", UNKNOWN_IDS.values(), ids=UNKNOWN_IDS.keys())
async def test_a_change_to_an_unknown_id_is_refused_and_changes_nothing(
    furnished: Lab, tmp_path: Path, call: Call
) -> None:
    error = await refused(furnished, tmp_path, call, NotFoundError)
    assert UNKNOWN in str(error) or "7.7.7" in str(error)


async def live_id(lab: Lab) -> str:
    found = await lab.versions.get_version("live", "system")
    assert found is not None
    return found.version_id


async def archive_live(lab: Lab) -> object:
    return await lab.versions.update_status(await live_id(lab), "archived")


async def delete_live(lab: Lab) -> object:
    return await lab.versions.delete_version(await live_id(lab))


ILLEGAL: dict[str, Call] = {
    "archive what is live": archive_live,
    "delete what is live": delete_live,
    "run back to draft": lambda lab: lab.experiments.update_experiment_status("greeting", "draft"),
    "create an archived version in production": creating(status="archived", tags=["production"]),
    "roll back to nothing": lambda lab: lab.versions.rollback("live", "system"),
}


@pytest.mark.parametrize("call", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_an_illegal_transition_is_refused_and_changes_nothing(
    furnished: Lab, tmp_path: Path, call: Call
) -> None:
    await refused(furnished, tmp_path, call, StateError)


@pytest.mark.parametrize("malformed", ["no id", "\ud800", 10**30, 1.0, None, [KNOWN], b"id"], ids=repr)
async def test_a_change_of_what_has_no_id_is_not_found(
    furnished: Lab, tmp_path: Path, malformed: Any
) -> None:
    versions = furnished.versions
    changes: list[Call] = [
        lambda _: versions.promote(malformed),
        lambda _: versions.tag_version(malformed, "eu"),
        lambda _: versions.tag_version(malformed, "staging"),
        lambda _: versions.untag_version(malformed, "eu"),
        lambda _: versions.update_status(malformed, "draft"),
        lambda _: versions.update_status(malformed, "production"),
        lambda _: versions.diff(malformed, malformed),
    ]
    for call in changes:
        await refused(furnished, tmp_path, call, NotFoundError)


@pytest.mark.parametrize("malformed", ["no id", "\ud800", 10**30, 1.0, None, [KNOWN], b"id"], ids=repr)
async def test_a_read_of_what_has_no_id_is_empty_and_a_delete_finds_nothing(
    furnished: Lab, tmp_path: Path, malformed: Any
) -> None:
    before = rows(tmp_path)
    assert await furnished.versions.get_version_by_id(malformed) is None
    assert await furnished.versions.delete_version(malformed) is False
    assert await furnished.metrics.get_metrics(malformed) == PromptMetrics(version_id="")
    assert await furnished.metrics.get_events(malformed) == []
    assert await furnished.metrics.get_version_performance_over_time(malformed) == []
    if malformed is not None:  # None is every version
        assert await furnished.metrics.reset_metrics(malformed) == 0
        assert await furnished.versions.get_version("live", "system", version_id=malformed) is None
    await furnished.store.flush()
    assert rows(tmp_path) == before
