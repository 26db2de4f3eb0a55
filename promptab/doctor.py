"""Is a store sound? Every check says what it found; nothing is changed.

A database file is looked at first with a read-only connection of its own, since a damaged one cannot be opened
otherwise; then the records are held against one another.
"""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Literal

from promptab.content import Content, content_hash
from promptab.errors import MissingExtraError, NotFoundError
from promptab.models import (
    Deployment,
    ExperimentStatus,
    PromptExperiment,
    PromptType,
    PromptVersion,
    VersionStatus,
)
from promptab.records import Record
from promptab.stores.base import Store, Transaction
from promptab.stores.migrating import HEAD, VERSION_TABLE
from promptab.stores.opening import open_store, resolve_url, shown_location, sqlite_path
from promptab.stores.postgres_url import is_postgres

Status = Literal["ok", "warning", "failed"]
Pointers = Mapping[tuple[PromptType, str, str], str]

LARGE_WAL_BYTES = 100_000_000
"""A write-ahead log beyond this is one that no checkpoint could empty for long: a reader never ends."""

_SHOWN = 5


class Check(Record):
    """One thing that was looked at."""

    name: str
    status: Status
    """A warning is worth knowing and no fault of the store."""
    detail: str


class Diagnosis(Record):
    """Everything that was looked at. A file that cannot be read is not looked into any further."""

    url: str
    python: str
    sqlite: str
    """Versions of what runs here."""
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        return all(check.status != "failed" for check in self.checks)


async def diagnose(url: str | None = None) -> Diagnosis:
    """Look at the store of this URL. Raises `NotFoundError` where its file does not exist; makes none."""
    resolved = resolve_url(url)
    path = sqlite_path(resolved)
    checks = [
        await check_commits(resolved)
        if is_postgres(resolved)
        else check_sqlite_version(sqlite3.sqlite_version)
    ]
    if path is not None:
        checks += await asyncio.to_thread(check_sqlite_file, path)
    if all(check.status != "failed" for check in checks):
        store = await open_store(resolved)
        try:
            checks += await check_records(store)
        finally:
            await store.close()
    return Diagnosis(
        url=shown_location(resolved),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        checks=tuple(checks),
    )


async def check_commits(url: str) -> Check:
    """Say where a PostgreSQL server keeps less than it acknowledges. Raises what opening the store would raise."""
    try:
        from promptab.stores.postgres_connecting import Server  # noqa: PLC0415 - its driver is an extra
    except ImportError as error:
        raise MissingExtraError("asyncpg", "postgres") from error
    off = await Server(url).switched_off()
    if not off:
        return Check(name="commits", status="ok", detail="what the server acknowledges is on its disk")
    return Check(
        name="commits",
        status="warning",
        detail=f"{' and '.join(off)} off: what was acknowledged may be lost when the server or its machine goes "
        "down; switch it on in postgresql.conf, or for the role or the URL that says otherwise",
    )


def check_sqlite_version(version: str) -> Check:
    """Name the WAL-reset bug where this SQLite has it: a checkpoint that races a commit can damage the file.

    3.7.0 to 3.51.2 have it; fixed in 3.51.3 and 3.53.0; 3.52.0 was withdrawn (https://sqlite.org/changes.html).
    """
    number = tuple(int(part) for part in version.split("."))
    if (3, 51, 3) <= number < (3, 52, 0) or number >= (3, 53, 0):
        return Check(name="SQLite version", status="ok", detail=f"{version}, without the WAL-reset bug")
    why = (
        "was withdrawn"
        if number[:2] == (3, 52)
        else "has the WAL-reset bug (rare damage when two processes write)"
    )
    return Check(
        name="SQLite version",
        status="warning",
        detail=f"{version} {why}; 3.51.3 and 3.53.0 are free of it. Keep backups, or install a newer SQLite",
    )


def check_sqlite_file(path: str) -> list[Check]:
    """Look at the file itself, with a connection that cannot write. Raises `NotFoundError`."""
    if not Path(path).exists():
        raise NotFoundError("store", f"sqlite:///{path}", "make one with `promptab init`")
    name = "file"
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            schema = _check_schema(connection)
            if schema.status == "failed":
                return [schema]
            name = "integrity"
            return [
                schema,
                _check_integrity(connection),
                _check_labels(connection),
                _check_wal(connection, path),
            ]
    except sqlite3.Error as error:
        return [Check(name=name, status="failed", detail=f"{path} cannot be read: {error}")]


def _check_schema(connection: sqlite3.Connection) -> Check:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if VERSION_TABLE not in tables:
        return Check(name="schema", status="failed", detail="the file holds no promptab store")
    # the name of the table is a constant of ours
    found = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    number = None if found is None else found[0]
    if number == HEAD:
        return Check(name="schema", status="ok", detail=f"{HEAD}, up to date")
    remedy = (
        "upgrade promptab"
        if number is not None and number > HEAD
        else "any other command brings it up to date"
    )
    return Check(name="schema", status="failed", detail=f"{number}, and this promptab has {HEAD}: {remedy}")


def _check_integrity(connection: sqlite3.Connection) -> Check:
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    problems += [
        f"a row of {table} refers to a row of {parent} that is gone"
        for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check")
    ]
    return _verdict("integrity", problems, "every page, index and reference is in order")


def _check_labels(connection: sqlite3.Connection) -> Check:
    """Production is the pointer alone: a second note of it would be a second truth. What is live is not archived."""
    problems = [
        f"version {version_id} bears {label!r} beside the pointer"
        for version_id, label in connection.execute(
            "SELECT version_id, tag FROM promptab_tags WHERE tag IN ('production', 'staging') "
            "UNION ALL SELECT version_id, status FROM promptab_versions WHERE status = 'production' "
            "UNION ALL SELECT version_id, status FROM promptab_versions WHERE status = 'archived' "
            "AND version_id IN (SELECT version_id FROM promptab_pointers)"
        )
    ]
    return _verdict("labels", problems, "what is live is noted in one place")


def _check_wal(connection: sqlite3.Connection, path: str) -> Check:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        return Check(
            name="journal",
            status="failed",
            detail=f"the journal mode is {mode}, not wal: readers and writers stop one another; "
            "set it with `PRAGMA journal_mode = WAL`",
        )
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > LARGE_WAL_BYTES:
        return Check(
            name="journal",
            status="warning",
            detail=f"the write-ahead log has {size:,} bytes: some process has been reading for very long",
        )
    return Check(name="journal", status="ok", detail=f"wal, {size:,} bytes")


async def check_records(store: Store) -> list[Check]:
    """Hold the records against one another, all as they are at one moment."""

    async def work(tx: Transaction) -> list[Check]:
        versions = await tx.versions.listing()
        pointers = await tx.deployments.pointers()
        prompts = {(version.prompt_type, version.name) for version in versions}
        prompts |= {(kind, name) for kind, name, _ in pointers}
        moves = [
            move for kind, name in sorted(prompts) for move in await tx.deployments.history(kind, name, None)
        ]
        live = frozenset({ExperimentStatus.RUNNING, ExperimentStatus.PAUSED})
        experiments = await tx.experiments.listing(statuses=live)
        with_events = await tx.version_totals.version_ids()
        return [
            check_contents(versions),
            check_production(versions, pointers),
            check_history(moves, pointers),
            check_experiments(experiments, versions),
            check_events(with_events, versions),
        ]

    return await store.read(work)


def check_contents(versions: Sequence[PromptVersion]) -> Check:
    """Content never changes: what is stored must still have the hash it was stored with."""
    hashes = {version.version_id: version.content_hash for version in versions}
    problems = []
    for version in versions:
        missing = [text for text, version_id in version.includes.items() if version_id not in hashes]
        if missing:
            problems.append(f"{version.label} includes {missing[0]!r}, which is gone")
        elif _hash_now(version, hashes) != version.content_hash:
            problems.append(f"{version.label} is not what was stored under its content hash")
    return _verdict(
        "contents",
        problems,
        f"versions that are what they were when they were made: {len(versions)}, all of them",
    )


def check_production(versions: Sequence[PromptVersion], pointers: Pointers) -> Check:
    """At most one version of a prompt is in production, and what is live exists."""
    by_id = {version.version_id: version for version in versions}
    live = Counter((v.prompt_type, v.name) for v in versions if v.status == VersionStatus.PRODUCTION)
    problems = [
        f"{kind}/{name} has {count} production versions" for (kind, name), count in live.items() if count > 1
    ]
    for (kind, name, environment), version_id in pointers.items():
        version = by_id.get(version_id)
        if version is None:
            problems.append(f"{environment} of {kind}/{name} is a version that is gone")
        elif (version.prompt_type, version.name) != (kind, name):
            problems.append(f"{environment} of {kind}/{name} is {version.label}")
    return _verdict("production", problems, f"prompts with a production version: {len(live)}; none has two")


def check_history(moves: Iterable[Deployment], pointers: Pointers) -> Check:
    """Replayed from its beginning, each history must end where the environment points.

    `moves` are those of one environment in their order, environments in any order.
    """

    def place(move: Deployment) -> tuple[PromptType, str, str]:
        return move.prompt_type, move.name, move.environment

    problems = []
    ends: dict[tuple[PromptType, str, str], str | None] = {}
    for key, history in groupby(sorted(moves, key=place), key=place):
        kind, name, environment = key
        live: str | None = None
        for move in history:
            if move.previous_version_id != live:
                problems.append(
                    f"{environment} of {kind}/{name}: move {move.sequence} leaves "
                    f"{move.previous_version or 'nothing'}, which was not live then"
                )
            live = move.version_id
        ends[key] = live
    for key in sorted({*ends, *pointers}):
        kind, name, environment = key
        if ends.get(key) != pointers.get(key):
            problems.append(f"{environment} of {kind}/{name} is not where its history ends")
    return _verdict("history", problems, f"histories of environments: {len(ends)}; each ends at what is live")


def check_experiments(experiments: Iterable[PromptExperiment], versions: Sequence[PromptVersion]) -> Check:
    """What a running or paused experiment serves must exist, where its prompt does."""
    numbers: dict[tuple[PromptType, str], set[str]] = {}
    for version in versions:
        numbers.setdefault((version.prompt_type, version.name), set()).add(version.version)
    problems = []
    count = 0
    for experiment in experiments:
        count += 1
        present = numbers.get((experiment.prompt_type, experiment.prompt_name or ""))
        problems += [
            f"variant {variant.key} of experiment {experiment.name!r} serves {variant.version}, which is gone"
            for variant in (*experiment.variants, *experiment.shadows)
            if present and variant.version is not None and variant.version not in present
        ]
    return _verdict("experiments", problems, f"running or paused: {count}; all that they serve exists")


def check_events(with_events: Sequence[str], versions: Iterable[PromptVersion]) -> Check:
    """Events of a version that is not here are allowed: it may have been deleted since."""
    known = {version.version_id for version in versions}
    unknown = [version_id for version_id in with_events if version_id not in known]
    if unknown:
        return Check(
            name="events",
            status="warning",
            detail=f"versions with events that are not in this store: {_some(unknown)}",
        )
    return Check(
        name="events", status="ok", detail=f"versions with events: {len(with_events)}, all of them known"
    )


def _hash_now(version: PromptVersion, hashes: Mapping[str, str]) -> str:
    content = Content(
        prompt_type=version.prompt_type,
        template=version.template,
        messages=version.messages,
        defaults=version.defaults,
        validation=version.validation,
        config=version.config,
    )
    return content_hash(content, {text: hashes[version_id] for text, version_id in version.includes.items()})


def _verdict(name: str, problems: Sequence[str], fine: str) -> Check:
    if problems:
        return Check(name=name, status="failed", detail=_some(problems))
    return Check(name=name, status="ok", detail=fine)


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
