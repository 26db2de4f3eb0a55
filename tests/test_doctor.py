"""What `promptab.doctor` sees, on stores that were damaged on purpose."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import promptab
from promptab import Lab, NotFoundError, PromptVariant
from promptab.doctor import Diagnosis, check_sqlite_version, diagnose

SOUND = [
    *("SQLite version", "schema", "integrity", "labels", "journal"),
    *("contents", "production", "history", "experiments", "events"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def fill(lab: Lab) -> None:
    """Two versions of which the second is in production after a rollback and a promotion, and an experiment."""
    await lab.versions.create_version("tone", "system", "Be kind.")
    first = await lab.versions.create_version(
        "a", "system", '{% include "system/tone@^1.0" %} {{ x }}', defaults={"x": 1.0}, config={"model": "ä"}
    )
    second = await lab.versions.create_version("a", "system", "{{ x }}", tags=["good"])
    await lab.versions.promote(first.version_id)
    await lab.versions.promote(second.version_id)
    await lab.versions.rollback("a", "system")
    await lab.versions.promote(second.version_id)
    await lab.experiments.create_experiment(
        "a", "system", [PromptVariant(first.version), PromptVariant(second.version)]
    )
    await lab.metrics.record_event(second.version_id, success=True)


@pytest.fixture
async def filled(path: Path) -> Path:
    async with promptab.open(f"sqlite:///{path}") as lab:
        await fill(lab)
    return path


def damage(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def failed(path: Path) -> dict[str, str]:
    """Return what is wrong, by the name of the check."""
    diagnosis = await diagnose(f"sqlite:///{path}")
    wrong = {check.name: check.detail for check in diagnosis.checks if check.status == "failed"}
    assert diagnosis.sound == (not wrong)
    return wrong


async def test_a_sound_store_passes_every_check(filled: Path) -> None:
    before = filled.read_bytes()
    diagnosis = await diagnose(f"sqlite:///{filled}")
    assert [check.name for check in diagnosis.checks] == SOUND
    assert {check.status for check in diagnosis.checks[1:]} == {"ok"}
    assert diagnosis.sound
    assert diagnosis.sqlite == sqlite3.sqlite_version
    assert filled.read_bytes() == before


async def test_a_store_in_memory_is_looked_at_without_a_file() -> None:
    diagnosis = await diagnose("sqlite:///:memory:")
    assert [check.name for check in diagnosis.checks] == [SOUND[0], *SOUND[5:]]


@pytest.mark.parametrize("setting", ["on", "off"])
async def test_a_server_that_acknowledges_what_is_not_on_its_disk_is_named(
    postgres_url: str, setting: str
) -> None:
    joint = "&" if "?" in postgres_url else "?"
    diagnosis = await diagnose(f"{postgres_url}{joint}synchronous_commit={setting}")
    assert [check.name for check in diagnosis.checks] == ["commits", *SOUND[5:]]
    commits = diagnosis.checks[0]
    # the server of the tests may have others off, since nothing of it has to last
    assert ("synchronous_commit" in commits.detail) == (setting == "off")
    assert commits.status == (
        "ok" if commits.detail == "what the server acknowledges is on its disk" else "warning"
    )
    assert diagnosis.sound


async def test_a_file_that_is_not_there_is_not_made(path: Path) -> None:
    with pytest.raises(NotFoundError, match="promptab init"):
        await diagnose(f"sqlite:///{path}")
    assert not path.exists()


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("3.7.0", "warning"), ("3.40.1", "warning"), ("3.51.2", "warning"), ("3.51.3", "ok"), ("3.51.9", "ok"),
        ("3.52.0", "warning"), ("3.53.0", "ok"), ("4.0.0", "ok"),
    ],
)  # fmt: skip
def test_sqlite_with_the_wal_reset_bug_is_warned_of(version: str, status: str) -> None:
    check = check_sqlite_version(version)
    assert check.status == status
    assert version in check.detail


async def test_a_warning_leaves_a_store_sound() -> None:
    warned = Diagnosis(url="", python="", sqlite="", checks=(check_sqlite_version("3.40.1"),))
    assert warned.sound


async def test_a_file_of_another_kind_is_named(path: Path) -> None:
    path.write_text("this is no database, " * 100)
    assert "not a database" in (await failed(path))["file"]


async def test_a_database_of_another_application_is_named(path: Path) -> None:
    damage(path, "CREATE TABLE cakes (name TEXT)")
    assert await failed(path) == {"schema": "the file holds no promptab store"}


@pytest.mark.parametrize(("number", "told"), [("0000", "any other command"), ("9999", "upgrade promptab")])
async def test_another_schema_is_named_and_left_as_it_is(filled: Path, number: str, told: str) -> None:
    damage(filled, f"UPDATE promptab_migrations SET version_num = '{number}'")
    wrong = await failed(filled)
    assert list(wrong) == ["schema"]
    assert told in wrong["schema"]
    with closing(sqlite3.connect(filled)) as connection:
        assert connection.execute("SELECT version_num FROM promptab_migrations").fetchone() == (number,)


async def test_damaged_pages_are_found(filled: Path) -> None:
    damage(filled, "PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(filled.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    # whole pages behind the table of contents become noise
    data[3 * page : 12 * page] = b"\xa5" * (9 * page)
    filled.write_bytes(data)
    assert set(await failed(filled)) & {"file", "integrity"}


async def test_a_reference_into_nowhere_is_found(filled: Path) -> None:
    damage(filled, "DELETE FROM promptab_versions WHERE name = 'a' AND version = '1.0.1'")
    wrong = await failed(filled)
    assert "refers to a row of promptab_versions that is gone" in wrong["integrity"]


async def test_a_second_note_of_production_is_found(filled: Path) -> None:
    damage(
        filled,
        "INSERT INTO promptab_tags SELECT version_id, 'staging' FROM promptab_versions WHERE name = 'tone'",
    )
    assert "bears 'staging' beside the pointer" in (await failed(filled))["labels"]


async def test_another_journal_mode_is_found(filled: Path) -> None:
    damage(filled, "PRAGMA journal_mode = DELETE")
    assert "readers and writers stop one another" in (await failed(filled))["journal"]


async def test_changed_content_is_found(filled: Path) -> None:
    damage(
        filled,
        "UPDATE promptab_versions SET content = replace(content, 'Be kind.', 'Be rude.') WHERE name = 'tone'",
    )
    assert await failed(filled) == {
        "contents": "system/tone@1.0.0 is not what was stored under its content hash"
    }


async def test_an_include_that_is_gone_is_found(filled: Path) -> None:
    damage(filled, "DELETE FROM promptab_versions WHERE name = 'tone'")
    assert "system/a@1.0.0 includes 'system/tone@^1.0', which is gone" in (await failed(filled))["contents"]


async def test_a_pointer_that_its_history_does_not_explain_is_found(filled: Path) -> None:
    damage(
        filled,
        "UPDATE promptab_pointers SET version_id = "
        "(SELECT version_id FROM promptab_versions WHERE name = 'a' AND version = '1.0.0')",
    )
    assert await failed(filled) == {"history": "production of system/a is not where its history ends"}


async def test_a_history_with_a_hole_is_found(filled: Path) -> None:
    damage(filled, "DELETE FROM promptab_deployments WHERE sequence = 2")
    assert "move 3 leaves 1.0.1, which was not live then" in (await failed(filled))["history"]


async def test_a_pointer_at_a_version_of_another_prompt_is_found(filled: Path) -> None:
    damage(filled, "UPDATE promptab_pointers SET name = 'tone'")
    assert (await failed(filled))["production"] == "production of system/tone is system/a@1.0.1"


async def test_an_archived_version_that_is_live_is_found(filled: Path) -> None:
    damage(filled, "UPDATE promptab_versions SET status = 'archived' WHERE version = '1.0.1'")
    assert "bears 'archived' beside the pointer" in (await failed(filled))["labels"]


async def test_a_variant_whose_version_is_gone_is_found(filled: Path) -> None:
    damage(filled, "DELETE FROM promptab_versions WHERE name = 'a' AND version = '1.0.0'")
    assert (
        "variant 1.0.0 of experiment 'a' serves 1.0.0, which is gone" in (await failed(filled))["experiments"]
    )


async def test_events_of_a_deleted_version_are_a_warning(filled: Path) -> None:
    gone = "0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f"
    async with promptab.open(f"sqlite:///{filled}") as lab:
        await lab.metrics.record_event(gone, success=True)
    diagnosis = await diagnose(f"sqlite:///{filled}")
    assert diagnosis.sound
    assert diagnosis.checks[-1].status == "warning"
    assert gone in diagnosis.checks[-1].detail
