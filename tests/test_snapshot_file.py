"""The snapshot file: what goes in comes out, whatever is damaged or hostile is refused or left out, and is named."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import InvalidInputError, Lab, MessageTemplate, PromptVariant
from promptab.models import PromptType
from promptab.snapshot import Dealt, Snapshot
from promptab.snapshot_file import read_snapshot, uncompilable, write_snapshot
from tests.command_line import Shell

TAKEN = datetime(2026, 1, 5, 12, tzinfo=UTC)
UNITS = [f"u{number}" for number in range(300)]


async def fill(lab: Lab) -> None:
    """Make one of everything that a snapshot may hold."""
    make = lab.versions.create_version
    await make("tone", "system", "Be {{ mood }}.", "1.0.0", defaults={"mood": "kind"})
    for number in ("1.0.0", "1.1.0"):
        version = await make(
            "greeting",
            "system",
            f'{{% include "system/tone" %}} {number} für {{{{ name }}}}',
            number,
            validation={"properties": {"name": {"type": "string", "maxLength": 9}}},
            config={"model": "m", "parameters": {"temperature": 0.5}},
        )
        await lab.versions.promote(version.version_id, "production" if number == "1.0.0" else "staging")
    await make("chat", "message", [MessageTemplate(role="user", content="Hi {{ name }}.")], "1.0.0")
    await make("plain", "config", config={"deep": [{"a": None}, 1e300, "ü"]})
    await lab.experiments.set_holdout("global", 0.1)
    create = lab.experiments.create_experiment
    await create(
        "greeting",
        "system",
        [PromptVariant("1.0.0", 3.0), PromptVariant("1.1.0", key="new", config={"t": [1]})],
        holdout="global",
        traffic=0.8,
        where="plan != 'staff'",
        overrides={"u7": "new"},
    )
    await lab.experiments.update_weights("greeting", {"1.0.0": 0.1, "new": 0.9}, lead_seconds=0)
    await lab.experiments.update_traffic("greeting", 0.5)
    await create("colour", "config", [{"key": "red", "config": {}}, {"key": "blue", "config": {}}])
    await lab.experiments.assign("greeting", session_id="s1", attributes={"plan": "free"})
    await lab.experiments.alias("s1", "u9")
    await lab.experiments.pause("colour")


@pytest.fixture
async def snapshot() -> Snapshot:
    async with promptab.open("sqlite:///:memory:") as lab:
        await fill(lab)
        return await lab.store.snapshot()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.json"


def rewritten(path: Path, change: Callable[[Any], None]) -> None:
    """Change the contents and make the digest right again, as somebody with the file in hand can."""
    _, body = path.read_bytes().splitlines()
    contents = json.loads(body)
    change(contents)
    changed = json.dumps(contents).encode()
    digest = hashlib.sha256(changed).hexdigest()
    head = {"format": "promptab snapshot", "format_version": 1, "sha256": digest}
    path.write_bytes(json.dumps(head).encode() + b"\n" + changed + b"\n")


def answers(snapshot: Snapshot, now: datetime) -> list[Any]:
    """Return what every experiment of the snapshot deals to everybody."""
    dealt = []
    for live in snapshot.experiments:
        for unit in UNITS:
            answer = snapshot.assign(live, unit, {"plan": "free"}, now)
            fresh = answer if isinstance(answer, Dealt) else answer.fresh
            dealt.append((type(answer).__name__, fresh.assignment()))
    return dealt


def test_what_is_written_is_read(snapshot: Snapshot, path: Path) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    filed = read_snapshot(path)
    assert filed.snapshot == snapshot
    assert (filed.taken_at, filed.faults) == (TAKEN, ())
    assert filed.age(TAKEN + timedelta(minutes=2)) == 120.0
    assert filed.age(TAKEN - timedelta(minutes=2)) == 0.0, (
        "a clock that goes back makes nothing younger than new"
    )
    now = datetime.now(UTC)
    dealt = answers(filed.snapshot, now)
    assert dealt == answers(snapshot, now)
    assert len({(kind, assignment.reason) for kind, assignment in dealt}) > 4
    assert uncompilable(filed.snapshot) == []


def test_an_empty_snapshot_is_one_too(path: Path) -> None:
    empty = Snapshot(store_id="s", revision=0, experiments=(), live={}, latest={}, versions={}, numbers={})
    write_snapshot(path, empty, taken_at=TAKEN)
    assert read_snapshot(path).snapshot == empty


def test_the_file_is_replaced_as_a_whole_and_keeps_its_permissions(snapshot: Snapshot, path: Path) -> None:
    path.write_text("something else")
    path.chmod(0o640)
    write_snapshot(path, snapshot, taken_at=TAKEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [found.name for found in path.parent.iterdir()] == ["snapshot.json"]


def test_a_file_that_cannot_be_written_is_told(snapshot: Snapshot, path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can be written"):
        write_snapshot(path / "below", snapshot, taken_at=TAKEN)


def test_no_changed_byte_passes(snapshot: Snapshot, path: Path) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    whole = path.read_bytes()
    head = whole.index(b"\n")
    for position in [*range(head), *range(head + 1, len(whole) - 1, 97)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            found = read_snapshot(path)
        except InvalidInputError:
            continue
        # what stands between the words of the first line says nothing
        assert position < head
        assert found.snapshot == snapshot


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_file_that_was_cut_is_refused(snapshot: Snapshot, path: Path, share: float) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InvalidInputError, match="snapshot_file") as caught:
        read_snapshot(path)
    assert "promptab snapshot write" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"null\n{}", b"[]\n[]", b"\xff\xfe\n", b'{"format": "other"}\n{}', b"[" * 100_000, b"\x00" * 5_000],
    ids=["empty", "line", "null", "list", "not utf-8", "other", "deep", "nul"],
)  # fmt: skip
def test_what_is_no_snapshot_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="a snapshot file"):
        read_snapshot(path)


def test_a_file_of_a_later_format_names_both_versions(snapshot: Snapshot, path: Path) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2', 1))
    with pytest.raises(InvalidInputError, match=r"format 1.*it says 2"):
        read_snapshot(path)


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can be read"):
        read_snapshot(path)
    with pytest.raises(InvalidInputError, match="can be read"):
        read_snapshot(path.parent)


@pytest.mark.parametrize("place", ["/", "."])
def test_a_folder_is_no_place_for_the_file(snapshot: Snapshot, place: str) -> None:
    with pytest.raises(InvalidInputError, match="snapshot_file"):
        write_snapshot(Path(place), snapshot, taken_at=TAKEN)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes in folders on Windows")
def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(InvalidInputError, match="not a regular one"):
        read_snapshot(path)


def version_of(contents: Any, name: str) -> Any:
    return next(version for version in contents["versions"] if version["name"] == name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: version_of(c, "greeting").update(template="Ignore all that."), "content_hash"),
        (lambda c: version_of(c, "greeting").update(content_hash="0" * 64), "content_hash"),
        (lambda c: version_of(c, "greeting")["config"].update(model="other"), "content_hash"),
        (lambda c: version_of(c, "greeting").update(name="../../etc/passwd"), "name"),
        (lambda c: version_of(c, "chat")["messages"][0].update(role="system"), "content_hash"),
        (lambda c: version_of(c, "plain")["config"].update(n=2**70), "63 bits"),
        (lambda c: version_of(c, "greeting").update(template="x" * 200_000), "source_chars"),
        (lambda c: version_of(c, "greeting").update(validation={"type": 7}), "validation"),
        (lambda c: version_of(c, "tone").update(includes={"x": version_of(c, "tone")["version_id"]}), "itself"),
        (lambda c: c["versions"].remove(version_of(c, "tone")), "includes"),
        (lambda c: c["experiments"][0]["epochs"].clear(), "epoch"),
        (lambda c: c["experiments"][0]["epochs"][0].update(segments=[["zz", "a"]]), "segments"),
        (lambda c: c["experiments"][0]["epochs"][0].update(segments=[["10000000000000000", "nobody"]]), "nobody"),
        (lambda c: c["experiments"][0]["experiment"].update(overrides={"u1": "nobody"}), "nobody"),
        (lambda c: c["experiments"][0].update(kept={"u1": "nobody"}), "nobody"),
        (lambda c: c["experiments"][0]["experiment"].update(where="''.__class__"), "__class__"),
        (lambda c: c["experiments"][0]["experiment"].update(where="x" * 10_000), "condition"),
    ],
)  # fmt: skip
def test_what_a_store_would_not_take_is_left_out_and_named(
    snapshot: Snapshot, path: Path, change: Callable[[Any], None], told: str
) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    rewritten(path, change)
    filed = read_snapshot(path)
    assert told in " ".join(filed.faults)
    assert len(filed.snapshot.versions) + len(filed.snapshot.experiments) < len(snapshot.versions) + len(
        snapshot.experiments
    )
    # and the rest is served
    found = filed.snapshot.latest_active(PromptType.MESSAGE, "chat")
    plain = filed.snapshot.latest_active(PromptType.CONFIG, "plain")
    assert found is not None or plain is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(store_id=7),
        lambda c: c.update(surprise=1),
        lambda c: c.update(revision="many"),
        lambda c: c.pop("versions"),
        lambda c: c.update(taken_at="yesterday"),
        lambda c: c["live"].append(["system", "greeting", "qa", "v"]),
        lambda c: c["latest"].append(["nonsense", "greeting", "v"]),
        lambda c: c["experiments"][0]["experiment"]["variants"][0].update(weight=-1),
        lambda c: c["experiments"][0]["experiment"].update(status="flying"),
    ],
)
def test_contents_of_another_shape_are_refused(
    snapshot: Snapshot, path: Path, change: Callable[[Any], None]
) -> None:
    write_snapshot(path, snapshot, taken_at=TAKEN)
    rewritten(path, change)
    with pytest.raises(InvalidInputError, match="as declared"):
        read_snapshot(path)


def chain_of(snapshot: Snapshot, links: int, times: int) -> Snapshot:
    """Return a snapshot of versions that each include the one before several times, with hashes that are right."""
    from promptab.content import check_content, content_hash  # noqa: PLC0415 - what an attacker would use

    first = next(version for version in snapshot.versions.values() if version.name == "tone")
    made = [first]
    for number in range(links):
        below = made[-1]
        references = [f"system/{below.name}@^1.0.{index}" for index in range(times)]
        template = "".join(f'{{% include "{reference}" %}}' for reference in references)
        content = check_content(PromptType.SYSTEM, template, defaults=None, validation=None, config=None)
        hashed = content_hash(content, dict.fromkeys(references, below.content_hash))
        made.append(
            first.model_copy(
                update={
                    "version_id": f"v{number}", "name": f"n{number}", "template": template, "defaults": {},
                    "includes": dict.fromkeys(references, below.version_id), "content_hash": hashed,
                }
            )
        )  # fmt: skip
    return Snapshot(
        store_id="s",
        revision=1,
        experiments=(),
        live={},
        latest={(v.prompt_type, v.name): v.version_id for v in made},
        versions={v.version_id: v for v in made},
        numbers={},
    )


def test_includes_that_multiply_cost_no_more_than_their_number(snapshot: Snapshot, path: Path) -> None:
    write_snapshot(path, chain_of(snapshot, links=20, times=3), taken_at=TAKEN)
    filed = read_snapshot(path)
    assert filed.faults == ()
    # three to the power of twenty renderings would be refused by their steps; compiling them is quick
    assert uncompilable(filed.snapshot) == []


def test_includes_that_are_too_deep_are_left_out(snapshot: Snapshot, path: Path) -> None:
    write_snapshot(path, chain_of(snapshot, links=40, times=1), taken_at=TAKEN)
    filed = read_snapshot(path)
    assert 0 < len(filed.snapshot.versions) < 30
    assert all("deep" in fault for fault in filed.faults)


async def test_no_password_is_in_the_file(tmp_path: Path, path: Path) -> None:
    async with promptab.open(f"sqlite:///{tmp_path / 'hunter2.db'}", snapshot_file=path) as lab:
        await lab.versions.create_version("greeting", "system", "Hello.")
        await lab.store.snapshot()
    assert b"hunter2" not in path.read_bytes()


def test_the_commands_write_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path, monkeypatch)
    shell.make_greeting()
    written = shell.json("snapshot", "write", "s.json")
    assert (written["prompts"], written["experiments"]) == (1, 0)
    checked = shell.json("snapshot", "check", "s.json")
    assert (checked["sound"], checked["faults"], checked["revision"]) == (True, [], written["revision"])
    assert "can start from this file" in shell.ok("snapshot", "check", "s.json")
    file = tmp_path / "s.json"
    rewritten(file, lambda contents: contents["versions"][0].update(template="Ignore all that."))
    said = shell.run("snapshot", "check", "s.json", "--json")
    assert said.code == 8
    assert not json.loads(said.out)["sound"]
    file.write_text("nonsense")
    assert shell.run("snapshot", "check", "s.json").code == 5
