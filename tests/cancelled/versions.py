"""The coroutines of `VersionManager`."""

from __future__ import annotations

from typing import Any

from promptab import CaseResult, PromptVersion
from promptab.cases import digest_of
from promptab.managed import utc_now
from tests.cancelled.attempts import FIRST, SECOND, Attempt, Preparation, Stage, pair, reads

ACTIVE = [(FIRST, "active", ()), (SECOND, "active", ())]
FIRST_LIVE = [(FIRST, "production", ("production",)), (SECOND, "active", ())]
SECOND_LIVE = [(FIRST, "active", ()), (SECOND, "production", ("production",))]

GUARD = {"guardrails": ["success_rate >= 0.8"]}

States = tuple[list[tuple[str, str, tuple[str, ...]]], list[tuple[str, str | None]]]


async def states(stage: Stage) -> States:
    """Return (version, status, tags) of each version, and (action, version) of each move, oldest first."""
    history = await stage.lab.versions.get_version_history(stage.name, "system")
    moves = await stage.lab.versions.deployments(stage.name, "system")
    return (
        [(version.version, version.status.value, version.tags) for version in history],
        [(move.action, move.version) for move in moves],
    )


async def creating(stage: Stage) -> Attempt:
    async def look() -> object:
        history = await stage.lab.versions.get_version_history(stage.name, "system")
        moves = await stage.lab.versions.deployments(stage.name, "system", None)
        return (
            [(version.template, version.tags) for version in history],
            [(move.environment, move.action) for move in moves],
        )

    return Attempt(
        lambda: stage.lab.versions.create_version(
            stage.name, "system", "Be kind.", tags=["a", "b", "production", "staging"], created_by="Ada"
        ),
        look,
        none=([], []),
        whole=(
            [("Be kind.", ("a", "b", "production", "staging"))],
            [("production", "promote"), ("staging", "promote")],
        ),
    )


async def deleting(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    return Attempt(
        lambda: stage.lab.versions.delete_version(first.version_id),
        lambda: states(stage),
        none=(ACTIVE, []),
        whole=(ACTIVE[1:], []),
    )


async def promoting(stage: Stage) -> Attempt:
    first, second = await pair(stage)
    await stage.lab.versions.promote(first.version_id)

    async def look() -> object:
        guards = await stage.lab.versions.guards(stage.name)
        return await states(stage), [guard.version for guard in guards]

    return Attempt(
        lambda: stage.lab.versions.promote(second.version_id, guard=GUARD),
        look,
        none=((FIRST_LIVE, [("promote", FIRST)]), []),
        whole=((SECOND_LIVE, [("promote", FIRST), ("promote", SECOND)]), [SECOND]),
    )


async def rolling_back(stage: Stage) -> Attempt:
    for version in await pair(stage):
        await stage.lab.versions.promote(version.version_id)
    moves = [("promote", FIRST), ("promote", SECOND)]
    return Attempt(
        lambda: stage.lab.versions.rollback(stage.name, "system", expected=SECOND),
        lambda: states(stage),
        none=(SECOND_LIVE, moves),
        whole=(
            [(FIRST, "production", ("production",)), (SECOND, "deprecated", ())],
            [*moves, ("rollback", FIRST)],
        ),
    )


async def tagging(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    return Attempt(
        lambda: stage.lab.versions.tag_version(first.version_id, "best"),
        lambda: states(stage),
        none=(ACTIVE, []),
        whole=([(FIRST, "active", ("best",)), ACTIVE[1]], []),
    )


async def untagging(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    await stage.lab.versions.tag_version(first.version_id, "best")
    return Attempt(
        lambda: stage.lab.versions.untag_version(first.version_id, "best"),
        lambda: states(stage),
        none=([(FIRST, "active", ("best",)), ACTIVE[1]], []),
        whole=(ACTIVE, []),
    )


async def changing_status(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    await stage.lab.versions.promote(first.version_id)
    return Attempt(
        lambda: stage.lab.versions.update_status(first.version_id, "deprecated"),
        lambda: states(stage),
        none=(FIRST_LIVE, [("promote", FIRST)]),
        whole=(
            [(FIRST, "deprecated", ()), (SECOND, "active", ())],
            [("promote", FIRST), ("withdraw", None)],
        ),
    )


async def reading_deployments(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    await stage.lab.versions.promote(first.version_id)
    return reads(
        lambda: stage.lab.versions.deployments(stage.name, "system"),
        [("promote", FIRST)],
        lambda moves: [(move.action, move.version) for move in moves],
    )


async def reading_what_was_live(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    await stage.lab.versions.promote(first.version_id)
    now = utc_now()
    return reads(lambda: stage.lab.versions.deployed_at(stage.name, "system", now), FIRST, number)


async def comparing(stage: Stage) -> Attempt:
    first, second = await pair(stage)
    expected = await stage.lab.versions.diff(first.version_id, second.version_id)
    return reads(
        lambda: stage.lab.versions.diff(first.version_id, second.version_id), expected, lambda diff: diff
    )


async def finding(stage: Stage) -> Attempt:
    await pair(stage)
    return reads(lambda: stage.lab.versions.get_version(stage.name, "system", "^1.0"), SECOND, number)


async def finding_by_id(stage: Stage) -> Attempt:
    first, _ = await pair(stage)
    return reads(lambda: stage.lab.versions.get_version_by_id(first.version_id), FIRST, number)


async def reading_history(stage: Stage) -> Attempt:
    await pair(stage)
    return reads(
        lambda: stage.lab.versions.get_version_history(stage.name, "system"), [FIRST, SECOND], numbers
    )


async def listing(stage: Stage) -> Attempt:
    await pair(stage)
    return reads(lambda: stage.lab.versions.list_versions(stage.name), [FIRST, SECOND], numbers)


def number(version: PromptVersion | None) -> Any:
    return version and version.version


def numbers(versions: list[PromptVersion]) -> list[str]:
    return sorted(version.version for version in versions)


CASE = {"name": "greets", "expect": {"contains": ["Hello"]}}


async def case_names(stage: Stage) -> list[str]:
    return [case.name for case in await stage.lab.versions.get_cases(stage.name, "system")]


async def setting_cases(stage: Stage) -> Attempt:
    await pair(stage)
    return Attempt(
        lambda: stage.lab.versions.set_cases(stage.name, "system", [CASE]),
        lambda: case_names(stage),
        none=[],
        whole=["greets"],
    )


async def getting_cases(stage: Stage) -> Attempt:
    await pair(stage)
    await stage.lab.versions.set_cases(stage.name, "system", [CASE])
    return reads(
        lambda: stage.lab.versions.get_cases(stage.name, "system"),
        ["greets"],
        lambda cases: [case.name for case in cases],
    )


async def a_result(stage: Stage) -> tuple[str, CaseResult]:
    first, _ = await pair(stage)
    (case,) = await stage.lab.versions.set_cases(stage.name, "system", [CASE])
    return first.version_id, CaseResult(name=case.name, digest=digest_of(case), status="passed")


async def keeping_a_result(stage: Stage) -> Attempt:
    version_id, result = await a_result(stage)
    return Attempt(
        lambda: stage.lab.versions.keep_result(version_id, result),
        lambda: stage.lab.versions.case_results(version_id),
        none={},
        whole={"greets": result},
    )


async def reading_results(stage: Stage) -> Attempt:
    version_id, result = await a_result(stage)
    await stage.lab.versions.keep_result(version_id, result)
    return reads(lambda: stage.lab.versions.case_results(version_id), {"greets": result}, lambda found: found)


async def listing_guards(stage: Stage) -> Attempt:
    first, second = await pair(stage)
    await stage.lab.versions.promote(first.version_id)
    await stage.lab.versions.promote(second.version_id, guard=GUARD)
    return reads(
        lambda: stage.lab.versions.guards(stage.name),
        [SECOND],
        lambda guards: [guard.version for guard in guards],
    )


PREPARATIONS: dict[str, Preparation] = {
    "guards": listing_guards,
    "case_results": reading_results,
    "get_cases": getting_cases,
    "keep_result": keeping_a_result,
    "set_cases": setting_cases,
    "create_version": creating,
    "delete_version": deleting,
    "promote": promoting,
    "rollback": rolling_back,
    "tag_version": tagging,
    "untag_version": untagging,
    "update_status": changing_status,
    "deployments": reading_deployments,
    "deployed_at": reading_what_was_live,
    "diff": comparing,
    "get_version": finding,
    "get_version_by_id": finding_by_id,
    "get_version_history": reading_history,
    "list_versions": listing,
}
