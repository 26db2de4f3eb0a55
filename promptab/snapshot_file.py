"""A snapshot in a file, for a start while the store cannot be reached: the last that was live, checked on the way in.

Two lines of JSON: what it is, with the SHA-256 of the second line; and the contents. Whoever can write the file
decides which prompts are served, as with the store itself; the digest finds damage, not malice. So everything in it
goes through the checks that a prompt goes through when it is created. There is no password in it, as there is none
in a version.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from promptab.checks import check_name
from promptab.content import check_content, compile_version, content_hash
from promptab.errors import InvalidInputError, PromptabError, PromptFileError
from promptab.library.disk import replace_file
from promptab.live_experiment import Dealing, HeldOut, LiveExperiment, build_live_experiment
from promptab.models import Environment, Epoch, PromptExperiment, PromptType, PromptVersion
from promptab.records import Record, Utc
from promptab.snapshot import Snapshot

FORMAT = "promptab snapshot"
FORMAT_VERSION = 1
MAX_BYTES = 256 * 2**20
MAX_INCLUDE_DEPTH = 24
"""What a render allows, too."""

_REMEDY = "write it again with `promptab snapshot write`"


class _Live(Record):
    experiment: PromptExperiment
    epochs: tuple[Epoch, ...]
    held_out: HeldOut | None
    kept: Mapping[str, str]


class _Contents(Record):
    store_id: str
    revision: int
    taken_at: Utc
    experiments: tuple[_Live, ...]
    live: tuple[tuple[PromptType, str, Environment, str], ...]
    latest: tuple[tuple[PromptType, str, str], ...]
    versions: tuple[PromptVersion, ...]
    aliases: Mapping[str, str]


class FiledSnapshot(NamedTuple):
    """A snapshot out of a file."""

    snapshot: Snapshot
    taken_at: datetime
    faults: tuple[str, ...]
    """What was left out, each with the reason."""

    def age(self, now: datetime) -> float:
        """Return how many seconds ago it was taken; 0 where a clock says that it is still to come."""
        return max(timedelta(0), now - self.taken_at).total_seconds()


def write_snapshot(path: Path, snapshot: Snapshot, *, taken_at: datetime) -> None:
    """Write the file as a whole or not at all. Raises `InvalidInputError` where it cannot be written."""
    if not path.absolute().name:
        raise InvalidInputError("snapshot_file", str(path), "the path of a file")
    contents = _Contents(
        store_id=snapshot.store_id,
        revision=snapshot.revision,
        taken_at=taken_at,
        experiments=tuple(map(_live_contents, snapshot.experiments)),
        live=tuple((*key, version_id) for key, version_id in snapshot.live.items()),  # type: ignore[misc] # an environment is one of two texts
        latest=tuple((*key, version_id) for key, version_id in snapshot.latest.items()),
        versions=tuple(snapshot.versions.values()),
        aliases=snapshot.aliases,
    )
    body = contents.model_dump_json().encode()
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    try:
        replace_file(path.absolute(), json.dumps(head).encode() + b"\n" + body + b"\n", shown=str(path))
    except PromptFileError as error:
        raise InvalidInputError(
            "snapshot_file", str(path), f"a file that can be written ({error})"
        ) from error


def read_snapshot(path: Path) -> FiledSnapshot:
    """Return the snapshot in the file.

    Versions and experiments that the store would not take are left out, and named in `faults`. Raises
    `InvalidInputError` that says what is wrong, for anything but a whole file that `write_snapshot` has made.
    """
    contents = _read_contents(path)
    faults: list[str] = []
    versions = _sound_versions(contents.versions, faults)
    snapshot = Snapshot(
        store_id=contents.store_id,
        revision=contents.revision,
        experiments=_sound_experiments(contents.experiments, faults),
        live={(kind, name, where): version_id for kind, name, where, version_id in contents.live},
        latest={(kind, name): version_id for kind, name, version_id in contents.latest},
        versions=versions,
        numbers={(v.prompt_type, v.name, v.version): v.version_id for v in versions.values()},
        aliases=contents.aliases,
    )
    return FiledSnapshot(snapshot, contents.taken_at, tuple(faults))


def uncompilable(snapshot: Snapshot) -> list[str]:
    """Compile every template in it, and return what does not compile, each with the reason."""
    faults = []
    for version in snapshot.versions.values():
        if version.prompt_type.has_template:
            try:
                compile_version(version, snapshot.versions)
            except PromptabError as error:
                faults.append(f"{version.label}: {error}")
    return faults


def _read_contents(path: Path) -> _Contents:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # a pipe would be waited for
            raise _unusable(path, "a file that can be read (it is not a regular one)")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"a file that can be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise _unusable(path, f"at most {MAX_BYTES} bytes long")
    head, _, body = data.partition(b"\n")
    body = body.removesuffix(b"\n")
    try:
        told = json.loads(head[:1_000])
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise _unusable(path, "a snapshot file")
    if told.get("format_version") != FORMAT_VERSION:
        found = told.get("format_version")
        raise _unusable(
            path, f"of format {FORMAT_VERSION}, which this promptab reads (it says {found!r:.20})"
        )
    if told.get("sha256") != hashlib.sha256(body).hexdigest():
        raise _unusable(path, "whole: its contents are not those that were written")
    try:
        return _Contents.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _unusable(path, f"as declared ({where}: {first['msg']})") from None


def _unusable(path: Path, bound: str) -> InvalidInputError:
    return InvalidInputError("snapshot_file", str(path), bound, _REMEDY)


def _live_contents(live: LiveExperiment) -> _Live:
    experiment_id = live.experiment.experiment_id
    uniform = () if live.uniform is None else live.uniform.dealings
    return _Live(
        experiment=live.experiment,
        epochs=tuple(_epoch(experiment_id, dealing) for dealing in (*uniform, *live.dealings)),
        held_out=live.held_out,
        kept=live.kept,
    )


def _epoch(experiment_id: str, dealing: Dealing) -> Epoch:
    return Epoch(
        experiment_id=experiment_id,
        number=dealing.number,
        starts_at=dealing.starts_at,
        weights={key: float(share) for key, share in dealing.map.shares().items()},
        segments=dealing.map.to_json(),
        evicted=tuple(sorted(dealing.evicted)),
    )


def _sound_versions(given: Iterable[PromptVersion], faults: list[str]) -> dict[str, PromptVersion]:
    """Return those that the store would take, by id, what they include among them."""
    sound: dict[str, PromptVersion] = {}
    waiting = list(given)
    for _ in range(MAX_INCLUDE_DEPTH):
        ready = [version for version in waiting if sound.keys() >= set(version.includes.values())]
        if not ready:
            break
        waiting = [version for version in waiting if not sound.keys() >= set(version.includes.values())]
        for version in ready:
            try:
                _check_version(version, sound)
            except PromptabError as error:
                faults.append(f"{version.label}: {error}")
            else:
                sound[version.version_id] = version
    faults += [
        f"{version.label}: includes what is left out or absent, itself, or more than {MAX_INCLUDE_DEPTH} deep"
        for version in waiting
    ]
    return sound


def _check_version(version: PromptVersion, included: Mapping[str, PromptVersion]) -> None:
    """Refuse a version that could not have been created, or is not what its hash says."""
    check_name("name", version.name)
    content = check_content(
        version.prompt_type,
        version.messages or version.template,
        defaults=version.defaults,
        validation=version.validation,
        config=version.config,
    )
    hashes = {reference: included[inner].content_hash for reference, inner in version.includes.items()}
    if content_hash(content, hashes) != version.content_hash:
        raise InvalidInputError("content_hash", version.content_hash, "the hash of the content")


def _sound_experiments(given: Iterable[_Live], faults: list[str]) -> tuple[LiveExperiment, ...]:
    sound = []
    for live in given:
        try:
            sound.append(build_live_experiment(live.experiment, live.epochs, live.held_out, live.kept))
        except (PromptabError, ValueError) as error:
            faults.append(f"experiment {live.experiment.experiment_id}: {error}")
    return tuple(sound)
