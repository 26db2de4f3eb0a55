"""`promptab record`: what came of one use of a version, or an outcome that came later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer

from promptab.cli.arguments import read_numbers, read_time
from promptab.cli.options import JsonOption, TypeOption, UrlOption
from promptab.cli.output import emit, run
from promptab.cli.references import find_exactly, parse_reference
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.models import MetricEvent


def record(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE/NAME@VERSION",
            help="What was used; leave it out for a later outcome.",
            show_default=False,
        ),
    ] = None,
    *,
    success: Annotated[
        bool | None,
        typer.Option("--success/--failure", help="How it ended, if that is known.", show_default=False),
    ] = None,
    response_time: Annotated[
        float | None, typer.Option("--response-time", metavar="SECONDS", show_default=False)
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", help="All tokens together.", show_default=False)
    ] = None,
    input_tokens: Annotated[
        int | None,
        typer.Option("--input-tokens", metavar="N", help="Not read from a cache.", show_default=False),
    ] = None,
    cached_input_tokens: Annotated[
        int | None, typer.Option("--cached-input-tokens", metavar="N", show_default=False)
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", metavar="N", show_default=False)
    ] = None,
    cost: Annotated[float | None, typer.Option("--cost", metavar="DOLLARS", show_default=False)] = None,
    rating: Annotated[float | None, typer.Option("--rating", metavar="1-5", show_default=False)] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME=NUMBER", help="Any other measure; repeat for more.", show_default=False
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment", metavar="EXPERIMENT", help="Where it was part of one.", show_default=False
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option("--variant", metavar="KEY", help="What the unit was shown.", show_default=False),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Whose use it was.", show_default=False)
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session", metavar="ID", help="Whose outcome it is, without a user.", show_default=False
        ),
    ] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--event-id", metavar="UUID", help="Recorded twice, it counts once.", show_default=False
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it happened.", show_default="now")
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record one use of a version; or, without a version, an outcome that came later for a unit of an experiment.

    What is left out is unknown, which is not zero.

    $ promptab record system/greeting@1.0.0 --success --response-time 0.8 --cost 0.0004
    $ promptab record --experiment greeting --user u42 --metric resolved=1
    """
    timestamp = None if at is None else read_time("--at", at, now=datetime.now(UTC))
    metrics = read_numbers("--metric", metric or ())
    counts = {"input": input_tokens, "cached_input": cached_input_tokens, "output": output_tokens}
    measures = {"success": success, "response_time": response_time, "cost": cost, "rating": rating}
    is_use = reference is not None or variant is not None

    async def use(lab: Lab) -> MetricEvent:
        version_id = None
        if reference is not None:
            version_id = (await find_exactly(lab, parse_reference(reference, prompt_type))).version_id
        return await lab.metrics.record_event(
            version_id,
            success,
            response_time,
            _tokens(tokens, counts),
            rating,
            cost=cost,
            metrics=metrics,
            experiment_id=experiment,
            variant=variant,
            user_id=user,
            event_id=event_id,
            timestamp=timestamp,
        )

    async def outcome(lab: Lab) -> MetricEvent:
        name, value = _one_outcome({**measures, "tokens": tokens, **metrics}, counts)
        return await lab.metrics.record_result(
            _given(experiment), name, value, user, session, event_id=event_id, timestamp=timestamp
        )

    if is_use and session is not None:
        raise InvalidInputError("--session", session, "given for the use of a version", "say --user")
    event = run(use if is_use else outcome, url=url)
    emit(event, as_json=as_json, human=lambda to: to.print(f"recorded event {event.event_id}"))


def _given(experiment: str | None) -> str:
    if experiment is None:
        raise InvalidInputError(
            "reference",
            None,
            "given",
            "say what was used (TYPE/NAME@VERSION), or whose outcome it is (--experiment and --user)",
        )
    return experiment


def _one_outcome(measures: Mapping[str, float | None], counts: Mapping[str, int | None]) -> tuple[str, float]:
    """Return the metric and its value: an outcome is one, so that a bad second one leaves no first one."""
    if parts := [part for part, count in counts.items() if count is not None]:
        option = f"--{parts[0].replace('_', '-')}-tokens"
        raise InvalidInputError(
            option, counts[parts[0]], "given with a version", "outcomes have --tokens alone"
        )
    known = {name: float(value) for name, value in measures.items() if value is not None}
    if len(known) != 1:
        raise InvalidInputError(
            "--metric", list(known), "one outcome", "record one at a time, such as --metric resolved=1"
        )
    return known.popitem()


def _tokens(total: int | None, counts: Mapping[str, int | None]) -> int | dict[str, int] | None:
    parts = {part: count for part, count in counts.items() if count is not None}
    if not parts:
        return total
    return parts if total is None else {**parts, "total": total}
