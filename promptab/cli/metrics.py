"""`promptab metrics`: what the events of each version add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from promptab.analysis.wording import measure
from promptab.cli.arguments import read_time
from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.references import find_prompt, find_version, parse_reference, sorted_by_number
from promptab.lab import Lab
from promptab.models import PromptMetrics, PromptVersion
from promptab.stats.metric import MetricFormat

if TYPE_CHECKING:
    from rich.console import Console


class _Measured(NamedTuple):
    version: PromptVersion
    metrics: PromptMetrics


def metrics(
    reference: ReferenceArgument,
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="2025-06-30T14:00, or 7d for the last 7 days.", show_default=False
        ),
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add up the outcomes of every version of a prompt, or of one. A mean is over the events that told it.

    These are plain sums: whether one version is really better is what compare answers.

    $ promptab metrics system/greeting --since 7d
    """
    start = None if since is None else read_time("--since", since, now=datetime.now(UTC))

    async def work(lab: Lab) -> list[_Measured]:
        versions = await _versions(lab, reference, prompt_type)
        found = await lab.metrics.compare_variants([v.version_id for v in versions], start_time=start)
        return [_Measured(version, found[version.version_id]) for version in versions]

    measured = run(work, url=url)
    document = [{"version": one.version.label, **one.metrics.model_dump(mode="json")} for one in measured]
    emit(document, as_json=as_json, human=lambda to: _print(to, measured))


async def _versions(lab: Lab, reference: str, prompt_type: str | None) -> Sequence[PromptVersion]:
    """Return the version that is named, or all of the prompt, highest first."""
    written = parse_reference(reference, prompt_type)
    if written.version is not None:
        return [await find_version(lab, written)]
    prompt = await find_prompt(lab, written)
    return sorted_by_number(await lab.versions.list_versions(prompt.name, prompt.prompt_type))


def _print(to: Console, measured: Sequence[_Measured]) -> None:
    to.print(f"{measured[0].version.prompt_type}/{measured[0].version.name}", style="bold")
    numbers = ["events", "success", "time", "rating", "tokens", "cost"]
    rows = table("version", *numbers, right=numbers)
    for version, sums in measured:
        told = sums.success_count + sums.error_count
        rows.add_row(
            version.version,
            f"{sums.total_events:,}",
            measure(sums.success_rate, "percent") if told else "-",
            _mean(sums.avg_response_time, "seconds"),
            measure(sums.avg_rating, "number") if sums.rating_count else "-",
            _mean(sums.avg_tokens, "tokens"),
            _mean(sums.avg_cost, "dollars"),
        )
    to.print(rows)
    _print_named(to, measured)


def _print_named(to: Console, measured: Sequence[_Measured]) -> None:
    names = sorted({name for one in measured for name in one.metrics.metrics})
    if not names:
        return
    rows = table(
        "metric", *(one.version.version for one in measured), right=[o.version.version for o in measured]
    )
    for name in names:
        rows.add_row(name, *(_named(one.metrics.metrics, name) for one in measured))
    to.print(rows)


def _named(means: Mapping[str, float], name: str) -> str:
    return measure(means.get(name), "number")


def _mean(value: float, unit: MetricFormat) -> str:
    # a mean of exactly zero is what the sums have where no event told the measure
    return measure(value, unit) if value else "-"
