"""What the events of versions add up to: from the totals by the hour, and from the events that are not in them yet.

An hour that a question cuts in two is read event by event; `InvalidInputError` where these have been dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    Table,
    and_,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import InvalidInputError
from promptab.models import PromptMetrics
from promptab.stores.queries.time_spans import HOUR, Span, start_of_stretch
from promptab.stores.queries.unit_totals import each_metric
from promptab.stores.schema import events, instant, microseconds
from promptab.stores.totals_schema import (
    AMOUNTS,
    COUNTED,
    prunings,
    total_watermarks,
    version_hours,
    version_metric_hours,
)

VERSIONS_PER_QUERY = 2_000
"""A database bounds the parameters of one query."""

SMALLEST, LARGEST = ("first_at", "first_sequence"), ("last_at", "last_sequence")
_SUMS = [column.name for column in version_hours.columns if column.name not in {"version_id", "hour"}]


class Bucket(NamedTuple):
    """The events of one version in one stretch of time."""

    start: datetime
    metrics: PromptMetrics


class _Totals(NamedTuple):
    """Sums of some events: by column of `promptab_version_hours`, and (n, s) by named metric."""

    sums: Mapping[Any, Any]
    named: Mapping[str, tuple[int, float]]


class _Grouping(NamedTuple):
    """What sums are asked for by."""

    of_table: Callable[[Table], ColumnElement[Any]]
    of_events: ColumnElement[Any]


class _Asked(NamedTuple):
    """Where the answer is found, each event in one place."""

    version_ids: Sequence[str]
    hours: Span | None
    """What to take from the totals by the hour; None where these are of no use."""
    raw: list[ColumnElement[bool]]
    """For each set of single events the condition on them."""


def sums_of_events() -> dict[str, ColumnElement[Any]]:
    """Return the columns of `promptab_version_hours` that are no key, as sums over events."""
    sums: dict[str, ColumnElement[Any]] = {
        "events": func.count(),
        "uses": func.count().filter(events.c.kind == "use"),
        "outcomes": func.count(events.c.success),
        "successes": func.count().filter(events.c.success.is_(True)),
    }
    sums |= {f"n_{name}": func.count(events.c[name]) for name in (*AMOUNTS, "tokens")}
    sums |= {f"s_{name}": func.coalesce(func.sum(events.c[name]), 0.0) for name in AMOUNTS}
    sums |= {f"s_{name}": func.coalesce(func.sum(events.c[name]), 0) for name in COUNTED}
    sums |= {"first_at": func.min(events.c.at), "last_at": func.max(events.c.at)}
    return sums | {
        "first_sequence": func.min(events.c.sequence),
        "last_sequence": func.max(events.c.sequence),
    }


class VersionTotalQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def metrics(
        self,
        version_ids: Iterable[str],
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> dict[str, PromptMetrics]:
        """Return what each version's events with start_time <= timestamp < end_time add up to; zeros without any.

        Raises `InvalidInputError` for a time within an hour whose events have been dropped.
        """
        wanted = list(version_ids)
        found = await self._of_versions(wanted, Span.of(start_time, end_time))
        return {version_id: _metrics(version_id, found.get(version_id)) for version_id in wanted}

    async def pooled_metrics(self, version_ids: Collection[str]) -> PromptMetrics:
        """Return what the events of all these versions add up to; its `version_id` is empty."""
        found = await self._of_versions(version_ids, Span(None, None))
        return _metrics("", _together(found.values()))

    async def version_ids(self) -> list[str]:
        """Return the versions that have, or had, events, in the order of their ids."""
        tail = select(events.c.version_id).where(
            events.c.version_id.is_not(None), events.c.sequence > await self._watermark()
        )
        query = select(version_hours.c.version_id).union(tail)
        return sorted((await self._connection.execute(query)).scalars())

    async def over_time(
        self, version_id: str, *, seconds: int, start_time: datetime | None, end_time: datetime | None
    ) -> list[Bucket]:
        """Return the metrics per stretch of `seconds`, oldest first; stretches without events are left out.

        Raises `InvalidInputError` as `metrics` does, and for stretches that cut hours whose events have been dropped.
        """
        width = seconds * 1_000_000
        grouping = _Grouping(
            lambda table: start_of_stretch(table.c.hour, width), start_of_stretch(events.c.at, width)
        )
        asked = await self._asked([version_id], Span.of(start_time, end_time), width=width)
        found = await self._totals(asked, grouping)
        return [Bucket(instant(start), _metrics(version_id, found[start])) for start in sorted(found)]

    async def count(self, version_id: str) -> int:
        """Return how many events a version has had, those that were dropped too."""
        found = await self._of_versions([version_id], Span(None, None))
        return int(found[version_id].sums["events"]) if found else 0

    async def _of_versions(self, version_ids: Collection[str], span: Span) -> dict[str, _Totals]:
        wanted = list(version_ids)
        by_version = _Grouping(lambda table: table.c.version_id, events.c.version_id)
        found: dict[str, _Totals] = {}
        for at in range(0, len(wanted), VERSIONS_PER_QUERY):
            asked = await self._asked(wanted[at : at + VERSIONS_PER_QUERY], span)
            found |= await self._totals(asked, by_version)
        return found

    async def _totals(self, asked: _Asked, grouping: _Grouping) -> dict[Any, _Totals]:
        """Return the sums by group."""
        named = await self._named(asked, grouping)
        parts = [_events(grouping, among) for among in asked.raw]
        if asked.hours is not None:
            parts.append(_hours(grouping, asked.version_ids, asked.hours))
        rows = union_all(*parts).subquery()
        query = select(rows.c.grouped, *(_merged(rows.c[name]) for name in _SUMS)).group_by(rows.c.grouped)
        return {
            row.grouped: _Totals(row._mapping, named.get(row.grouped, {}))  # noqa: SLF001 - SQLAlchemy's public name
            for row in (await self._connection.execute(query)).all()
        }

    async def _named(self, asked: _Asked, grouping: _Grouping) -> dict[Any, dict[str, tuple[int, float]]]:
        """Return (n, s) of the named metrics by group."""
        each = each_metric(self._connection.dialect)
        parts = [_named_of_events(grouping, among, each) for among in asked.raw]
        if asked.hours is not None:
            parts.append(_measures(grouping, asked.version_ids, asked.hours))
        rows = union_all(*parts).subquery()
        query = (
            select(
                rows.c.grouped, rows.c.measure, func.sum(rows.c.n).label("n"), func.sum(rows.c.s).label("s")
            )
            .group_by(rows.c.grouped, rows.c.measure)
            .order_by(rows.c.measure)
        )
        found: dict[Any, dict[str, tuple[int, float]]] = {}
        for row in (await self._connection.execute(query)).all():
            found.setdefault(row.grouped, {})[row.measure] = (int(row.n), float(row.s))
        return found

    async def _watermark(self) -> int:
        query = select(total_watermarks.c.watermark).where(total_watermarks.c.kind == "versions")
        return int((await self._connection.execute(query)).scalar_one())

    async def _asked(self, version_ids: Sequence[str], span: Span, *, width: int = HOUR) -> _Asked:
        watermark = await self._watermark()
        among = events.c.version_id.in_(version_ids)
        within = span.limits(events.c.at)
        dropped = (await self._connection.execute(select(func.max(prunings.c.before)))).scalar_one()
        if width % HOUR:
            if dropped is not None:
                await self._check_whole(version_ids, watermark, span, width)
            return _Asked(version_ids, None, [and_(among, *within)])
        raw = [and_(among, events.c.sequence > watermark, *within)]
        for hour, part in span.cut_hours().items():
            stretch = await self._stretch(version_ids, watermark, hour, dropped)
            if stretch is not None:
                raw.append(and_(among, stretch, *part.limits(events.c.at)))
        return _Asked(version_ids, span.full_hours(), raw)

    async def _stretch(
        self, version_ids: Sequence[str], watermark: int, hour: int, dropped: datetime | None
    ) -> ColumnElement[bool] | None:
        """Return where the events of an hour are, as far as they are in the totals; None where it has none."""
        span = Span(hour, hour + HOUR)
        query = select(
            func.min(version_hours.c.first_sequence).label("first"),
            func.max(version_hours.c.last_sequence).label("last"),
            func.sum(version_hours.c.events).label("events"),
        ).where(version_hours.c.version_id.in_(version_ids), *span.limits(version_hours.c.hour))
        told = (await self._connection.execute(query)).one()
        if told.events is None:
            return None
        # events are recorded nearly as they happen, so that an hour is a short stretch of them
        stretch = and_(events.c.sequence >= told.first, events.c.sequence <= min(told.last, watermark))
        if dropped is not None and hour < microseconds(dropped):
            whole = (stretch, events.c.version_id.in_(version_ids), *span.limits(events.c.at))
            present = await self._connection.execute(select(func.count()).select_from(events).where(*whole))
            if present.scalar_one() != told.events:
                raise InvalidInputError(
                    "time",
                    f"in the middle of the hour from {instant(hour):%Y-%m-%dT%H:%M} (UTC)",
                    f"a full hour where it is before {dropped:%Y-%m-%dT%H:%M}",
                    "events of that hour have been pruned, and its totals cannot be cut",
                )
        return stretch

    async def _check_whole(self, version_ids: Sequence[str], watermark: int, span: Span, width: int) -> None:
        """Refuse what is asked by stretches that cut hours, where events of these have been dropped."""
        touched = span.touched_hours()
        told = select(func.coalesce(func.sum(version_hours.c.events), 0)).where(
            version_hours.c.version_id.in_(version_ids), *touched.limits(version_hours.c.hour)
        )
        present = (
            select(func.count())
            .select_from(events)
            .where(
                events.c.version_id.in_(version_ids),
                events.c.sequence <= watermark,
                *touched.limits(events.c.at),
            )
        )
        counted = [(await self._connection.execute(query)).scalar_one() for query in (told, present)]
        if counted[0] != counted[1]:
            raise InvalidInputError(
                "interval_hours",
                width / HOUR,
                "a whole number of hours",
                "events of that time have been pruned, and only the totals of full hours are left",
            )


def _hours(grouping: _Grouping, version_ids: Sequence[str], span: Span) -> Select[Any]:
    grouped = grouping.of_table(version_hours)
    return (
        select(grouped.label("grouped"), *(_merged(version_hours.c[name]) for name in _SUMS))
        .where(version_hours.c.version_id.in_(version_ids), *span.limits(version_hours.c.hour))
        .group_by(grouped)
    )


def _measures(grouping: _Grouping, version_ids: Sequence[str], span: Span) -> Select[Any]:
    table = version_metric_hours
    grouped = grouping.of_table(table)
    return (
        select(
            grouped.label("grouped"),
            table.c.measure.label("measure"),
            func.sum(table.c.n).label("n"),
            func.sum(table.c.s).label("s"),
        )
        .where(table.c.version_id.in_(version_ids), *span.limits(table.c.hour))
        .group_by(grouped, table.c.measure)
    )


def _events(grouping: _Grouping, among: ColumnElement[bool]) -> Select[Any]:
    sums = (column.label(name) for name, column in sums_of_events().items())
    grouped = grouping.of_events
    return select(grouped.label("grouped"), *sums).where(among).group_by(grouped)


def _named_of_events(grouping: _Grouping, among: ColumnElement[bool], each: Any) -> Select[Any]:
    value = cast(each.c.value, Float)
    grouped = grouping.of_events
    return (
        select(
            grouped.label("grouped"),
            each.c.key.label("measure"),
            func.count(value).label("n"),
            func.sum(value).label("s"),
        )
        .select_from(events.join(each, literal(value=True)))
        .where(among, events.c.metrics.is_not(None))
        .group_by(grouped, each.c.key)
    )


def _merged(column: ColumnElement[Any]) -> ColumnElement[Any]:
    name = str(column.key)
    merge = func.min if name in SMALLEST else func.max if name in LARGEST else func.sum
    return merge(column).label(name)


def _together(parts: Iterable[_Totals]) -> _Totals | None:
    """Merge the sums of different events; None of nothing."""
    total: _Totals | None = None
    for part in parts:
        total = part if total is None else _Totals(_added(total.sums, part.sums), _joined(total, part))
    return total


def _added(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = {name: one[name] + other[name] for name in _SUMS if name not in {*SMALLEST, *LARGEST}}
    merged |= {name: min(one[name], other[name]) for name in SMALLEST}
    return merged | {name: max(one[name], other[name]) for name in LARGEST}


def _joined(one: _Totals, other: _Totals) -> dict[str, tuple[int, float]]:
    merged = dict(one.named)
    for name, (n, s) in other.named.items():
        n_before, s_before = merged.get(name, (0, 0.0))
        merged[name] = (n_before + n, s_before + s)
    return {name: merged[name] for name in sorted(merged)}


def _metrics(version_id: str, totals: _Totals | None) -> PromptMetrics:
    if totals is None:
        return PromptMetrics(version_id=version_id)
    sums = totals.sums

    def mean(name: str) -> float:
        return float(sums[f"s_{name}"]) / int(sums[f"n_{name}"]) if sums[f"n_{name}"] else 0.0

    return PromptMetrics(
        version_id=version_id,
        total_events=int(sums["uses"]),
        success_count=int(sums["successes"]),
        error_count=int(sums["outcomes"] - sums["successes"]),
        success_rate=int(sums["successes"]) / int(sums["outcomes"]) if sums["outcomes"] else 0.0,
        avg_response_time=mean("response_time"),
        response_time_count=int(sums["n_response_time"]),
        avg_rating=mean("rating"),
        rating_count=int(sums["n_rating"]),
        avg_tokens=mean("tokens"),
        tokens_count=int(sums["n_tokens"]),
        total_tokens=int(sums["s_tokens"]),
        input_tokens=int(sums["s_input_tokens"]),
        cached_input_tokens=int(sums["s_cached_input_tokens"]),
        output_tokens=int(sums["s_output_tokens"]),
        avg_cost=mean("cost"),
        cost_count=int(sums["n_cost"]),
        total_cost=float(sums["s_cost"]),
        metrics={name: s / n for name, (n, s) in totals.named.items()},
        first_event_at=sums["first_at"],
        last_event_at=sums["last_at"],
    )
