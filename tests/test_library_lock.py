from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.errors import InvalidInputError, PromptFileError
from promptab.library import Lock, LockEntry
from promptab.models import PromptType

STORE = "0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f"
TONE = LockEntry(PromptType.SYSTEM, "tone", STORE, "1.0.0", "a" * 64)
REPLY = LockEntry(PromptType.SYSTEM, "reply", STORE, "2.1.0-rc.1", "b" * 64)
TRIAGE = LockEntry(PromptType.MESSAGE, "triage", STORE, "1.0.0", "c" * 64)

entries = st.builds(
    LockEntry,
    st.sampled_from(PromptType),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.uuids().map(str),
    st.sampled_from(["1.0.0", "0.2.1", "10.0.0-beta.2"]),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@given(st.lists(entries, unique_by=lambda entry: entry[:2]))
def test_any_lock_reads_back_as_written(made: list[LockEntry]) -> None:
    assert Lock.parse(str(Lock(made))) == Lock(made)


@given(st.lists(entries, unique_by=lambda entry: entry[:2]))
def test_text_does_not_depend_on_the_order_of_entries(made: list[LockEntry]) -> None:
    assert str(Lock(reversed(made))) == str(Lock(made))


def test_file_has_a_format_line_and_one_sorted_line_for_each_prompt(tmp_path: Path) -> None:
    path = tmp_path / "promptab.lock"
    Lock([TONE, REPLY, TRIAGE]).write(path)
    assert path.read_text() == (
        "promptab-lock 1\n"
        f"message/triage {STORE} 1.0.0 {'c' * 64}\n"
        f"system/reply {STORE} 2.1.0-rc.1 {'b' * 64}\n"
        f"system/tone {STORE} 1.0.0 {'a' * 64}\n"
    )
    assert Lock.read(path) == Lock([REPLY, TONE, TRIAGE])


def test_missing_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert Lock.read(tmp_path / "promptab.lock").entries == ()


def test_changing_a_lock_leaves_the_old_one_alone() -> None:
    lock = Lock([TONE])
    newer = TONE._replace(version="1.1.0")
    assert lock.with_entry(newer).get(PromptType.SYSTEM, "tone") == newer
    assert lock.without(PromptType.SYSTEM, "tone").get(PromptType.SYSTEM, "tone") is None
    assert lock.entries == (TONE,)


def test_changes_to_different_prompts_touch_different_lines() -> None:
    before = Lock([TONE, REPLY, TRIAGE])
    one = str(before.with_entry(TONE._replace(version="1.1.0"))).splitlines()
    other = str(before.with_entry(REPLY._replace(version="3.0.0"))).splitlines()
    base = str(before).splitlines()
    changed = [
        {i for i, (old, new) in enumerate(zip(base, lines, strict=True)) if old != new}
        for lines in (one, other)
    ]
    assert len(changed[0]) == len(changed[1]) == 1
    assert changed[0].isdisjoint(changed[1])


def test_unchanged_lock_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "promptab.lock"
    Lock([TONE]).write(path)
    before = path.stat()
    Lock([TONE]).write(path)
    assert path.stat().st_ino == before.st_ino


def test_lines_in_any_order_and_with_crlf_are_read() -> None:
    text = str(Lock([TONE, TRIAGE]))
    first, *rest = text.rstrip("\n").split("\n")
    assert Lock.parse("\r\n".join([first, *reversed(rest)])) == Lock([TONE, TRIAGE])


LINE = f"system/tone {STORE} 1.0.0 {'a' * 64}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("system/tone", "expected"),
        (LINE + " more", "expected"),
        (LINE.replace("system/", "system "), "expected"),
        (LINE.replace("system", "sytem"), "prompt_type"),
        (LINE.replace("tone", "../tone"), "name"),
        (LINE.replace("1.0.0", "1.0"), "version"),
        (LINE.replace("a" * 64, "A" * 64), "content_hash"),
        (LINE.replace("a" * 64, "a" * 63), "content_hash"),
        (LINE.replace(STORE, "-"), "store_id"),
        ("<<<<<<< HEAD", "merge conflict"),
        (LINE.replace(STORE, STORE[:-1] + "\N{DIGIT ONE FULL STOP}"), "store_id"),
    ],
)
def test_broken_line_is_refused_with_its_number(line: str, reason: str) -> None:
    with pytest.raises(PromptFileError, match=reason) as refused:
        Lock.parse(f"promptab-lock 1\nsystem/other {STORE} 1.0.0 {'a' * 64}\n{line}\n")
    assert refused.value.line == 3


def test_two_lines_for_one_prompt_are_refused() -> None:
    with pytest.raises(PromptFileError, match="also on line 2") as refused:
        Lock.parse(f"promptab-lock 1\n{LINE}\n{LINE}\n")
    assert refused.value.line == 3


@pytest.mark.parametrize("text", ["", "promptab-lock 2\n", LINE], ids=["empty", "newer", "headless"])
def test_text_without_the_format_line_is_refused(text: str) -> None:
    with pytest.raises(PromptFileError, match="first line"):
        Lock.parse(text)


def test_lock_that_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "promptab.lock"
    path.write_bytes(b"promptab-lock 1\n\xff\n")
    with pytest.raises(PromptFileError, match="UTF-8") as refused:
        Lock.read(path)
    assert refused.value.line == 2


@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_link_in_place_of_the_lock_is_neither_read_nor_written(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("promptab-lock 1\n")
    path = tmp_path / "promptab.lock"
    path.symlink_to(tmp_path / target)
    with pytest.raises(PromptFileError, match="symbolic link"):
        Lock.read(path)
    with pytest.raises(PromptFileError, match="symbolic link"):
        Lock([TONE]).write(path)
    assert outside.read_text() == "promptab-lock 1\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "promptab.lock"]


def test_lock_refuses_two_entries_for_one_prompt() -> None:
    with pytest.raises(InvalidInputError, match="one entry only"):
        Lock([TONE, TONE._replace(version="1.1.0")])


def test_lock_refuses_entries_that_would_break_its_lines() -> None:
    with pytest.raises(InvalidInputError, match="store_id"):
        Lock([TONE._replace(store_id="two words")])
    with pytest.raises(InvalidInputError, match="name"):
        Lock().with_entry(TONE._replace(name="a b"))
