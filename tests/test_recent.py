"""The memory of what was used lately: what it must keep, and how large it may become."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from promptab.recent import Recent

CAPACITY = 5
KEYS = st.integers(0, 30)


@given(st.lists(st.tuples(st.sampled_from(["get", "put", "add"]), KEYS), max_size=200))
def test_the_keys_that_were_used_last_are_remembered_and_the_rest_has_a_bound(
    uses: list[tuple[str, int]],
) -> None:
    memory: Recent[int, int] = Recent(CAPACITY)
    used: list[int] = []  # the key that was used last is last
    for use, key in uses:
        if use == "put":
            memory.put(key, key)
        elif use == "add":
            known = key in used[-CAPACITY:]
            added = memory.add(key, key)
            assert not (known and added), "what was used lately is not new"
        elif memory.get(key) is None:
            assert key not in used[-CAPACITY:]
            continue
        if key in used:
            used.remove(key)
        used.append(key)
        assert len(memory) <= 2 * CAPACITY
        assert [memory.get(recent) for recent in used[-CAPACITY:]] == used[-CAPACITY:]


def test_add_keeps_what_was_there_and_says_whether_it_was_new() -> None:
    memory: Recent[str, int] = Recent(CAPACITY)
    assert [memory.add("a", 1), memory.add("a", 2), memory.get("a")] == [True, False, 1]
    for number in range(CAPACITY):
        memory.put(f"other{number}", number)
    assert [memory.add("a", 3), memory.get("a")] == [False, 1], "also where it has moved to the older half"


def test_clear_forgets_everything() -> None:
    memory: Recent[str, int] = Recent(CAPACITY)
    for number in range(3 * CAPACITY):
        memory.put(f"k{number}", number)
    memory.clear()
    assert len(memory) == 0
    assert memory.get(f"k{3 * CAPACITY - 1}") is None
