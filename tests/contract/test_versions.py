"""The queries of versions and tags."""

from __future__ import annotations

import pytest

from promptab import ConflictError, PromptVersion
from promptab.models import MessageTemplate, PromptType, VersionStatus
from promptab.semver import parse_version
from promptab.stores.base import Store, Transaction, Work
from tests.contract.records import NOON, a_move, a_version, new_id

# SemVer 2.0's own example of precedence (section 11), with a few that text order gets wrong
IN_ORDER = [
    "0.9.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.9",
    "1.0.10",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]


async def put(store: Store, *versions: PromptVersion) -> None:
    async def work(tx: Transaction) -> None:
        for version in versions:
            await tx.versions.insert(version)

    await store.write(work)


async def listed(store: Store, **conditions: object) -> list[str]:
    async def work(tx: Transaction) -> list[str]:
        return [found.version for found in await tx.versions.listing(**conditions)]  # type: ignore[arg-type]

    return await store.read(work)


@pytest.mark.parametrize(
    "version",
    [
        a_version(),
        a_version(version="1.0.0-rc.1", status=VersionStatus.DRAFT, created_by="Zoë ♥"),
        a_version(
            prompt_type=PromptType.MESSAGE,
            template="",
            messages=(
                MessageTemplate(role="system", content="You are {{ who }}."),
                MessageTemplate(role="user", content=""),
            ),
        ),
        a_version(prompt_type=PromptType.MODEL, template="", config={"model": "m", "parameters": {"t": 0.2}}),
        a_version(prompt_type=PromptType.CONFIG, template="", config={"a": [1, 2.5, None, True, {"ü": ""}]}),
        a_version(defaults={"who": None}, validation={"type": "object"}, includes={"system/x@^1": new_id()}),
        a_version(
            template="\t\n  {{ a }}\r\n€😀\u2028'\"\\ ", metadata={"k": {"n": -0.5}}, tags=("a", "b:c/d")
        ),
        a_version(parent_version=new_id(), template="x" * 200_000),
    ],
    ids=["plain", "pre-release", "messages", "model", "config", "parts", "unicode", "long"],
)
async def test_insert_keeps_every_field_as_it_was(store: Store, version: PromptVersion) -> None:
    await put(store, version)

    async def work(tx: Transaction) -> PromptVersion | None:
        return await tx.versions.by_id(version.version_id)

    assert await store.read(work) == version


async def test_insert_refuses_a_number_that_is_taken(store: Store) -> None:
    first = a_version()
    await put(store, first)
    with pytest.raises(ConflictError, match=r"system/tone@1\.0\.0 exists already"):
        await put(store, a_version(template="Another."))

    async def work(tx: Transaction) -> list[PromptVersion]:
        return await tx.versions.listing()

    assert await store.read(work) == [first]


async def test_insert_takes_the_same_number_for_another_prompt_or_type(store: Store) -> None:
    await put(
        store,
        a_version("tone"),
        a_version("Tone"),
        a_version("tone2"),
        a_version("tone", prompt_type=PromptType.USER),
    )
    assert await listed(store) == ["1.0.0"] * 4


async def test_by_number_compares_names_byte_by_byte(store: Store) -> None:
    await put(store, a_version("tone"))

    async def work(tx: Transaction) -> list[PromptVersion | None]:
        return [
            await tx.versions.by_number(PromptType.SYSTEM, "Tone", "1.0.0"),
            await tx.versions.by_number(PromptType.USER, "tone", "1.0.0"),
            await tx.versions.by_number(PromptType.SYSTEM, "tone", "1.0"),
            await tx.versions.by_number(PromptType.SYSTEM, "ton_", "1.0.0"),
            await tx.versions.by_id("nobody"),
        ]

    assert await store.read(work) == [None] * 5


async def test_numbers_and_listing_are_in_the_order_of_semver_highest_first(store: Store) -> None:
    assert sorted(IN_ORDER, key=parse_version) == IN_ORDER
    as_text = sorted(IN_ORDER)
    await put(store, *(a_version(version=number) for number in as_text))

    async def work(tx: Transaction) -> list[str]:
        return await tx.versions.numbers(PromptType.SYSTEM, "tone")

    assert await store.read(work) == IN_ORDER[::-1]
    assert await listed(store, name="tone") == IN_ORDER[::-1]


async def test_listing_goes_by_type_then_name_and_takes_every_filter(store: Store) -> None:
    await put(
        store,
        a_version("b", prompt_type=PromptType.USER, version="4.0.0"),
        a_version("b", version="2.0.0", status=VersionStatus.DRAFT),
        a_version("a", version="1.0.0"),
        a_version("b", version="3.0.0"),
    )
    assert await listed(store) == ["1.0.0", "3.0.0", "2.0.0", "4.0.0"]
    assert await listed(store, name="b") == ["3.0.0", "2.0.0", "4.0.0"]
    assert await listed(store, name="b", prompt_type=PromptType.SYSTEM) == ["3.0.0", "2.0.0"]
    assert await listed(store, status=VersionStatus.DRAFT) == ["2.0.0"]
    assert await listed(store, name="absent") == []


async def test_a_version_that_production_points_at_is_production_and_nothing_else(store: Store) -> None:
    live, idle = a_version(version="1.0.0"), a_version(version="2.0.0")
    await put(store, live, idle)

    async def work(tx: Transaction) -> None:
        await tx.deployments.move(a_move(live))

    await store.write(work)

    async def look(tx: Transaction) -> PromptVersion | None:
        return await tx.versions.by_id(live.version_id)

    found = await store.read(look)
    assert found is not None
    assert (found.status, found.tags) == (VersionStatus.PRODUCTION, ("production",))
    assert await listed(store, status=VersionStatus.PRODUCTION) == ["1.0.0"]
    assert await listed(store, status=VersionStatus.ACTIVE) == ["2.0.0"]


async def test_numbers_takes_only_the_statuses_asked_for(store: Store) -> None:
    live = a_version(version="1.0.0", status=VersionStatus.DEPRECATED)
    await put(
        store,
        live,
        a_version(version="2.0.0"),
        a_version(version="3.0.0", status=VersionStatus.DRAFT),
        a_version(version="4.0.0", status=VersionStatus.ARCHIVED),
    )

    async def move(tx: Transaction) -> None:
        await tx.deployments.move(a_move(live))

    await store.write(move)

    def of(*statuses: VersionStatus) -> Work[list[str]]:
        async def work(tx: Transaction) -> list[str]:
            return await tx.versions.numbers(PromptType.SYSTEM, "tone", statuses)

        return work

    assert await store.read(of(VersionStatus.ACTIVE, VersionStatus.PRODUCTION)) == ["2.0.0", "1.0.0"]
    assert await store.read(of(VersionStatus.DEPRECATED)) == []
    assert await store.read(of(VersionStatus.DRAFT, VersionStatus.ARCHIVED)) == ["4.0.0", "3.0.0"]


async def test_highest_served_is_the_highest_active_or_live_version_of_each_prompt(store: Store) -> None:
    live = a_version("live", version="9.0.0")
    await put(
        store,
        a_version("a", version="1.9.0"),
        a_version("a", version="1.10.0"),
        a_version("a", version="2.0.0", status=VersionStatus.DRAFT),
        a_version("idle", version="1.0.0", status=VersionStatus.ARCHIVED),
        a_version("live", version="1.0.0"),
        live,
    )

    async def move(tx: Transaction) -> None:
        await tx.deployments.move(a_move(live))

    await store.write(move)

    async def work(tx: Transaction) -> set[tuple[str, str]]:
        return {(version.name, version.version) for version in await tx.versions.highest_served()}

    assert await store.read(work) == {("a", "1.10.0"), ("live", "9.0.0")}


async def test_by_tag_finds_free_tags_and_what_an_environment_points_at(store: Store) -> None:
    one, two = a_version(version="1.0.0", tags=("best",)), a_version(version="2.0.0", tags=("best", "new"))
    other = a_version("other", tags=("best",))
    await put(store, one, two, other)

    async def move(tx: Transaction) -> None:
        await tx.deployments.move(a_move(one, environment="staging"))
        await tx.deployments.move(a_move(other))

    await store.write(move)

    async def work(tx: Transaction) -> dict[str, list[str]]:
        return {
            tag: [found.version for found in await tx.versions.by_tag(PromptType.SYSTEM, "tone", tag)]
            for tag in ("best", "new", "staging", "production", "absent")
        }

    assert await store.read(work) == {
        "best": ["2.0.0", "1.0.0"],
        "new": ["2.0.0"],
        "staging": ["1.0.0"],
        "production": [],
        "absent": [],
    }


async def test_tags_are_added_once_and_removed_with_an_answer(store: Store) -> None:
    version, other = a_version(version="1.0.0"), a_version(version="2.0.0", tags=("best",))
    await put(store, version, other)

    async def work(tx: Transaction) -> tuple[bool, bool, list[tuple[str, ...]]]:
        await tx.versions.add_tag(version.version_id, "best")
        await tx.versions.add_tag(version.version_id, "best")
        await tx.versions.add_tag(version.version_id, "a")
        tags = [found.tags for found in await tx.versions.listing()]
        removed = await tx.versions.remove_tag(version.version_id, "best")
        again = await tx.versions.remove_tag(version.version_id, "best")
        return removed, again, [*tags, *(found.tags for found in await tx.versions.listing())]

    assert await store.write(work) == (True, False, [("best",), ("a", "best"), ("best",), ("a",)])


async def test_set_status_changes_one_version_alone(store: Store) -> None:
    version = a_version(version="1.0.0")
    await put(store, version, a_version(version="2.0.0"))

    async def work(tx: Transaction) -> list[VersionStatus]:
        await tx.versions.set_status(version.version_id, VersionStatus.DEPRECATED)
        return [found.status for found in await tx.versions.listing()]

    assert await store.write(work) == [VersionStatus.ACTIVE, VersionStatus.DEPRECATED]


async def test_delete_removes_the_version_with_its_tags_and_keeps_the_history(store: Store) -> None:
    version = a_version(tags=("best",))
    await put(store, version, a_version(version="2.0.0"))

    async def work(tx: Transaction) -> tuple[list[str], list[str], list[str | None]]:
        await tx.deployments.move(a_move(version))
        await tx.deployments.move(a_move(None, version))
        await tx.versions.delete(version.version_id)
        tagged = await tx.versions.by_tag(PromptType.SYSTEM, "tone", "best")
        history = await tx.deployments.history(PromptType.SYSTEM, "tone", "production")
        return (
            [found.version for found in await tx.versions.listing()],
            [found.version for found in tagged],
            [move.version for move in history],
        )

    assert await store.write(work) == (["2.0.0"], [], ["1.0.0", None])
    # the number is free again, and comes without the old one's tags
    again = a_version()
    await put(store, again)

    async def look(tx: Transaction) -> PromptVersion | None:
        return await tx.versions.by_id(again.version_id)

    assert await store.read(look) == again


async def test_by_ids_returns_those_that_exist_however_many_are_asked_for(store: Store) -> None:
    kept = [a_version(version=f"{major}.0.0") for major in range(1_200)]
    await put(store, *kept)

    async def work(tx: Transaction) -> dict[str, PromptVersion]:
        wanted = [version.version_id for version in kept]
        return await tx.versions.by_ids([*wanted, *wanted[:5], "nobody", new_id()])

    assert await store.read(work) == {version.version_id: version for version in kept}


async def test_by_numbers_returns_those_that_exist(store: Store) -> None:
    await put(store, a_version("a"), a_version("b"), a_version("b", version="2.0.0"))

    async def work(tx: Transaction) -> list[str]:
        wanted = [(PromptType.SYSTEM, name, number) for name in "abc" for number in ("1.0.0", "2.0.0")]
        return sorted(found.label for found in await tx.versions.by_numbers([*wanted, *wanted]))

    assert await store.read(work) == ["system/a@1.0.0", "system/b@1.0.0", "system/b@2.0.0"]


async def test_with_includes_follows_includes_all_the_way(store: Store) -> None:
    leaf = a_version("leaf")
    middle = a_version("middle", includes={"system/leaf": leaf.version_id})
    twice = a_version("twice", includes={"system/leaf": leaf.version_id, "system/middle": middle.version_id})
    top = a_version("top", includes={"system/twice": twice.version_id, "system/gone": new_id()})
    await put(store, leaf, middle, twice, top)

    async def work(tx: Transaction) -> set[str]:
        return {found.name for found in (await tx.versions.with_includes(top)).values()}

    assert await store.read(work) == {"leaf", "middle", "twice"}


async def test_including_names_the_versions_that_pin_a_version(store: Store) -> None:
    leaf = a_version("leaf")
    await put(
        store,
        leaf,
        a_version("user", includes={"system/leaf": leaf.version_id}),
        a_version("mention", template=f"Not an include: {leaf.version_id}", config={"id": leaf.version_id}),
    )

    async def work(tx: Transaction) -> list[str]:
        return await tx.versions.including(leaf.version_id)

    assert await store.read(work) == ["system/user@1.0.0"]


async def test_times_come_back_aware_and_to_the_microsecond(store: Store) -> None:
    version = a_version(created_at=NOON.replace(microsecond=123_457))
    await put(store, version)

    async def work(tx: Transaction) -> PromptVersion | None:
        return await tx.versions.by_id(version.version_id)

    found = await store.read(work)
    assert found is not None
    assert found.created_at == version.created_at
    assert found.created_at.tzinfo is not None
