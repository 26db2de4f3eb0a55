"""Cases and their results in a store, and what they let go live."""

from __future__ import annotations

from typing import Any

import pytest

from promptab import (
    Case,
    CaseResult,
    GateError,
    InvalidInputError,
    Lab,
    NotFoundError,
    PromptVersion,
    VersionManager,
)
from promptab.cases import digest_of
from tests.clock import SettableClock

CASES = [
    {"name": "late", "variables": {"customer": "Ada"}, "expect": {"contains": "Ada"}},
    {"name": "broken", "variables": {"customer": "Bo"}},
]


@pytest.fixture
async def live(versions: VersionManager) -> PromptVersion:
    """Version 1.0.0 in production, of a prompt with two cases."""
    version = await versions.create_version("reply", "system", "Help {{ customer }}.")
    await versions.promote(version.version_id)
    await versions.set_cases("reply", "system", CASES)
    return version


@pytest.fixture
async def candidate(versions: VersionManager, live: PromptVersion) -> PromptVersion:
    return await versions.create_version("reply", "system", "Do help {{ customer }}.")


async def tried(versions: VersionManager, version: PromptVersion, **statuses: Any) -> None:
    """Keep a result of each case."""
    for case in await versions.get_cases(version.name, version.prompt_type):
        if case.name in statuses:
            status = statuses[case.name]
            reasons = ("does not contain 'Ada'",) if status == "failed" else ()
            result = CaseResult(name=case.name, digest=digest_of(case), status=status, reasons=reasons)
            await versions.keep_result(version.version_id, result)


async def live_version(lab: Lab) -> str | None:
    found = await lab.versions.get_version("reply", "system", "production")
    return None if found is None else found.version


async def test_cases_are_of_the_prompt_and_change_no_version(
    versions: VersionManager, live: PromptVersion, candidate: PromptVersion
) -> None:
    cases = await versions.get_cases("reply", "system")
    assert [case.name for case in cases] == ["late", "broken"]
    assert cases[0] == Case.model_validate({**CASES[0], "expect": {"contains": ("Ada",)}})
    again = await versions.get_version_by_id(live.version_id)
    assert again is not None
    assert (again.content_hash, again.metadata) == (live.content_hash, {})
    assert await versions.set_cases("reply", "system", []) == ()
    assert await versions.get_cases("reply", "system") == ()


async def test_cases_need_a_prompt_that_can_be_asked(versions: VersionManager) -> None:
    assert await versions.get_cases("reply", "system") == ()
    with pytest.raises(NotFoundError, match="system/reply"):
        await versions.set_cases("reply", "system", CASES)
    await versions.create_version("rag", "config", config={"top_k": 3})
    with pytest.raises(InvalidInputError, match="asks a model"):
        await versions.set_cases("rag", "config", CASES)


async def test_the_latest_result_of_a_case_is_kept(
    versions: VersionManager, live: PromptVersion, clock: SettableClock
) -> None:
    (late, _) = await versions.get_cases("reply", "system")
    first = CaseResult(
        name="late", digest=digest_of(late), status="failed", reasons=("a", "b"), answer="No.", model="m",
        cost=0.25, seconds=1.5, at=clock(),
    )  # fmt: skip
    await versions.keep_result(live.version_id, first)
    assert await versions.case_results(live.version_id) == {"late": first}
    second = first.model_copy(update={"status": "passed", "reasons": (), "cost": None})
    await versions.keep_result(live.version_id, second)
    assert await versions.case_results(live.version_id) == {"late": second}


async def test_a_result_is_one_of_exactly_that_case(versions: VersionManager, live: PromptVersion) -> None:
    await tried(versions, live, late="passed")
    renamed = [{**CASES[0], "name": "very late"}, CASES[1]]
    await versions.set_cases("reply", "system", renamed)
    assert list(await versions.case_results(live.version_id)) == ["very late"]
    await versions.set_cases("reply", "system", [{**CASES[0], "expect": {"contains": "Bo"}}])
    assert await versions.case_results(live.version_id) == {}
    await versions.set_cases("reply", "system", CASES)
    assert list(await versions.case_results(live.version_id)) == ["late"]


@pytest.mark.parametrize("status", ["error", "not_run"])
async def test_what_says_nothing_of_a_version_is_not_kept(
    versions: VersionManager, live: PromptVersion, status: Any
) -> None:
    with pytest.raises(InvalidInputError, match="passed or failed"):
        await tried(versions, live, late=status)
    with pytest.raises(NotFoundError):
        await tried(versions, live.model_copy(update={"version_id": "0" * 32}), late="passed")
    assert await versions.case_results("no id") == {}


async def test_results_go_with_their_version(
    versions: VersionManager, live: PromptVersion, candidate: PromptVersion
) -> None:
    await tried(versions, candidate, late="passed", broken="failed")
    assert await versions.delete_version(candidate.version_id)
    assert await versions.case_results(candidate.version_id) == {}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"late": "passed", "broken": "passed"}, {"late": "passed", "broken": "passed"}),
        ({"late": "failed", "broken": "passed"}, {"late": "passed", "broken": "passed"}),
        ({"late": "failed", "broken": "passed"}, {"late": "failed", "broken": "passed"}),
        ({}, {"late": "passed", "broken": "passed"}),
    ],
    ids=["all_pass", "one_is_mended", "one_failed_before", "live_was_never_tried"],
)
async def test_a_version_without_a_step_back_goes_live_with_the_gate_as_evidence(
    lab: Lab, live: PromptVersion, candidate: PromptVersion, before: dict[str, str], now: dict[str, str]
) -> None:
    await tried(lab.versions, live, **before)
    await tried(lab.versions, candidate, **now)
    move = await lab.versions.promote(candidate.version_id, gate=True, evidence={"ticket": 7})
    assert move.evidence == {
        "ticket": 7,
        "gate": {
            "against": "system/reply@1.0.0",
            "cases": 2,
            "failed": [name for name, status in now.items() if status == "failed"],
        },
    }
    assert await live_version(lab) == "1.0.1"


@pytest.mark.parametrize(
    ("before", "now", "said", "cases"),
    [
        (
            {"late": "passed", "broken": "passed"},
            {"late": "failed", "broken": "passed"},
            r"passed on system/reply@1.0.0, which is live, and fails on \S+@1.0.1: late \(does not contain 'Ada'\)",
            ("late",),
        ),
        ({"late": "passed"}, {"late": "failed"}, "late", ("late",)),
        ({"late": "passed"}, {"late": "passed"}, "not tried on .*@1.0.1: broken; run `promptab test", ("broken",)),
        ({"late": "passed"}, {}, "not tried on system/reply@1.0.1: late, broken", ("late", "broken")),
        (
            {"late": "passed"},
            {"late": "passed", "broken": "failed"},
            "was not tried on system/reply@1.0.0, which is live: broken",
            ("broken",),
        ),
    ],
    ids=["a_step_back", "known_before_all_is_tried", "one_not_tried", "none_tried", "live_not_tried"],
)  # fmt: skip
async def test_the_gate_refuses_and_names_the_cases(
    lab: Lab,
    live: PromptVersion,
    candidate: PromptVersion,
    before: dict[str, str],
    now: dict[str, str],
    said: str,
    cases: tuple[str, ...],
) -> None:
    await tried(lab.versions, live, **before)
    await tried(lab.versions, candidate, **now)
    with pytest.raises(GateError, match=said) as refused:
        await lab.versions.promote(candidate.version_id, gate=True)
    assert refused.value.cases == cases
    assert await live_version(lab) == "1.0.0"
    assert len(await lab.versions.deployments("reply", "system")) == 1
    await lab.versions.promote(candidate.version_id)
    assert await live_version(lab) == "1.0.1"


async def test_the_gate_compares_with_what_is_live_in_that_environment(
    lab: Lab, live: PromptVersion, candidate: PromptVersion
) -> None:
    await tried(lab.versions, live, late="passed", broken="passed")
    await tried(lab.versions, candidate, late="passed", broken="failed")
    move = await lab.versions.promote(candidate.version_id, "staging", gate=True)
    assert move.evidence == {"gate": {"against": None, "cases": 2, "failed": ["broken"]}}
    with pytest.raises(GateError, match="broken"):
        await lab.versions.promote(candidate.version_id, gate=True)


async def test_a_gate_without_cases_is_refused(
    lab: Lab, live: PromptVersion, candidate: PromptVersion
) -> None:
    await lab.versions.set_cases("reply", "system", [])
    with pytest.raises(GateError, match=r"has no cases.*tests:"):
        await lab.versions.promote(candidate.version_id, gate=True)
    assert await live_version(lab) == "1.0.0"


async def test_promoting_what_is_live_already_asks_no_gate(lab: Lab, live: PromptVersion) -> None:
    move = await lab.versions.promote(live.version_id, gate=True)
    assert (move.version, move.evidence) == ("1.0.0", None)


async def test_a_refusal_of_many_names_some_and_counts_the_rest(
    lab: Lab, live: PromptVersion, candidate: PromptVersion
) -> None:
    many = [{"name": f"n{index}", "variables": {"customer": str(index)}} for index in range(30)]
    await lab.versions.set_cases("reply", "system", many)
    with pytest.raises(GateError, match=r"n0, .*n9 and 20 more;") as refused:
        await lab.versions.promote(candidate.version_id, gate=True)
    assert len(refused.value.cases) == 30
