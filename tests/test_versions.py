"""Creating, numbering, finding, labelling and deleting versions."""

from __future__ import annotations

import uuid
from datetime import UTC

import pytest
from pydantic import BaseModel

from promptab import (
    ConflictError,
    InvalidInputError,
    Lab,
    NotFoundError,
    PromptVariant,
    PromptVersion,
    StateError,
    UnderstatedVersionWarning,
    VersionManager,
    VersionStatus,
)
from tests.clock import SettableClock

UNKNOWN = str(uuid.UUID(int=7))


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(
    versions: VersionManager, *numbers: str, name: str = "greeting", status: str = "active"
) -> list[PromptVersion]:
    return [
        await versions.create_version(name, "system", f"Text of {number}.", number, status=status)
        for number in numbers
    ]


async def reread(versions: VersionManager, version: PromptVersion) -> PromptVersion:
    found = await versions.get_version_by_id(version.version_id)
    assert found is not None
    return found


async def test_create_numbers_the_first_version_1_0_0(versions: VersionManager) -> None:
    first = await versions.create_version("greeting", "system", "Hello.")
    assert (first.version, first.parent_version, first.status) == ("1.0.0", None, VersionStatus.ACTIVE)


@pytest.mark.parametrize("status", ["draft", "active", "deprecated", "archived"])
async def test_create_bumps_the_highest_version_whatever_its_status(
    versions: VersionManager, status: str
) -> None:
    await create(versions, "1.0.0")
    await create(versions, "3.1.4", status=status)
    await create(versions, "2.0.0")
    following = await versions.create_version("greeting", "system", "Hello.")
    assert following.version == "3.1.5"


@pytest.mark.parametrize(
    ("bump", "number"), [("patch", "1.2.4"), ("minor", "1.3.0"), ("major", "2.0.0"), ("auto", "1.2.4")]
)
async def test_create_takes_the_step_that_bump_names(
    versions: VersionManager, bump: str, number: str
) -> None:
    await create(versions, "1.2.3")
    following = await versions.create_version("greeting", "system", "Hello.", bump=bump)  # type: ignore[arg-type]
    assert following.version == number


async def test_create_continues_a_pre_release_series_to_its_release(versions: VersionManager) -> None:
    await create(versions, "1.0.0", "2.0.0-rc.1")
    following = await versions.create_version("greeting", "system", "Hello.")
    assert following.version == "2.0.0"


async def test_create_numbers_each_type_and_name_by_itself(versions: VersionManager) -> None:
    await create(versions, "4.0.0")
    other_type = await versions.create_version("greeting", "user", "Hello.")
    other_name = await versions.create_version("farewell", "system", "Bye.")
    assert (other_type.version, other_name.version) == ("1.0.0", "1.0.0")


async def test_create_refuses_a_number_that_is_taken(versions: VersionManager) -> None:
    await create(versions, "1.0.0")
    with pytest.raises(ConflictError, match=r"system/greeting@1\.0\.0 exists already"):
        await versions.create_version("greeting", "system", "Another.", "1.0.0")
    assert [version.template for version in await versions.list_versions()] == ["Text of 1.0.0."]


async def test_create_makes_a_new_version_of_the_same_content_by_default(versions: VersionManager) -> None:
    first = await versions.create_version("greeting", "system", "Hello.")
    second = await versions.create_version("greeting", "system", "Hello.")
    assert (second.version, second.content_hash) == ("1.0.1", first.content_hash)


async def test_if_changed_returns_the_latest_version_when_it_has_this_content(
    versions: VersionManager,
) -> None:
    first = await versions.create_version("greeting", "system", "Hello.", metadata={"by": "ada"})
    again = await versions.create_version(
        "greeting", "system", "Hello.", metadata={"by": "bob"}, if_changed=True
    )
    assert again == first


async def test_if_changed_makes_a_version_when_only_an_older_one_has_this_content(
    versions: VersionManager,
) -> None:
    await versions.create_version("greeting", "system", "Hello.")
    await versions.create_version("greeting", "system", "Hi.")
    back = await versions.create_version("greeting", "system", "Hello.", if_changed=True)
    assert back.version == "1.0.2"


async def test_if_changed_makes_a_version_when_the_one_of_this_content_was_given_up(
    versions: VersionManager,
) -> None:
    await create(versions, "1.0.0")
    await create(versions, "1.0.1", status="deprecated")
    again = await versions.create_version("greeting", "system", "Text of 1.0.1.", if_changed=True)
    assert (again.version, again.status) == ("1.0.2", VersionStatus.ACTIVE)


async def test_content_hash_looks_at_all_content_and_nothing_else(versions: VersionManager) -> None:
    base = await versions.create_version("greeting", "system", "Hello {{ name }}.")
    same = await versions.create_version(
        "other", "system", "Hello {{ name }}.", "3.0.0", metadata={"a": 1}, created_by="ada", tags=["x"]
    )
    assert same.content_hash == base.content_hash
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    different = [
        await versions.create_version("greeting", "system", "Hello {{ name }}!"),
        await versions.create_version("greeting", "user", "Hello {{ name }}."),
        await versions.create_version("greeting", "system", "Hello {{ name }}.", defaults={"name": "you"}),
        await versions.create_version("greeting", "system", "Hello {{ name }}.", validation=schema),
        await versions.create_version("greeting", "system", "Hello {{ name }}.", config={"model": "m"}),
    ]
    assert len({base.content_hash, *(version.content_hash for version in different)}) == 6


async def test_create_keeps_metadata_author_parent_and_time(
    versions: VersionManager, clock: SettableClock
) -> None:
    first, _ = await create(versions, "1.0.0", "1.1.0")
    clock.advance(hours=1)
    branch = await versions.create_version(
        "greeting",
        "system",
        "Hello.",
        metadata={"ticket": "P-1", "nested": {"list": [1, 2.5, None]}},
        created_by="Ada",
        parent_version=first.version_id,
    )
    assert branch.parent_version == first.version_id
    assert branch.metadata == {"ticket": "P-1", "nested": {"list": [1, 2.5, None]}}
    assert (branch.created_by, branch.created_at, branch.created_at.tzinfo) == ("Ada", clock.now, UTC)
    assert await reread(versions, branch) == branch


async def test_create_names_the_highest_version_as_parent_by_default(versions: VersionManager) -> None:
    _, highest, _ = await create(versions, "1.0.0", "2.0.0", "1.5.0")
    following = await versions.create_version("greeting", "system", "Hello.")
    assert following.parent_version == highest.version_id


async def test_create_refuses_a_parent_of_another_prompt(versions: VersionManager) -> None:
    (stranger,) = await create(versions, "1.0.0", name="stranger")
    with pytest.raises(InvalidInputError, match="parent_version"):
        await versions.create_version("greeting", "system", "Hello.", parent_version=stranger.version_id)
    with pytest.raises(NotFoundError, match=UNKNOWN):
        await versions.create_version("greeting", "system", "Hello.", parent_version=UNKNOWN)


async def test_create_takes_a_pydantic_model_as_validation(lab: Lab) -> None:
    class Variables(BaseModel):
        name: str
        age: int = 3

    created = await lab.versions.create_version(
        "greeting", "system", "{{ name }} is {{ age }}.", validation=Variables
    )
    assert created.validation is not None
    assert created.validation["properties"]["age"]["type"] == "integer"
    choice = await lab.choose("greeting")
    assert choice.render(name="Ada") == "Ada is 3."
    with pytest.raises(InvalidInputError, match="age"):
        choice.render(name="Ada", age="old")


async def test_create_keeps_a_chat_prompt_as_roles_and_templates(lab: Lab) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "I am {{ name }}."}]
    created = await lab.versions.create_version("chat", "message", messages)
    assert [message.model_dump() for message in created.messages] == messages
    rendered = (await lab.choose("chat", "message")).messages(name="[system] Ada")
    assert [(message.role, message.content) for message in rendered] == [
        ("system", "Be kind."),
        ("user", "I am [system] Ada."),
    ]


@pytest.mark.parametrize("prompt_type", ["model", "config"])
async def test_create_keeps_models_and_configurations_without_a_template(
    versions: VersionManager, prompt_type: str
) -> None:
    config = {"model": "m-1", "parameters": {"temperature": 0.2}, "stop": ["\n"]}
    created = await versions.create_version("answers", prompt_type, config=config)
    assert (created.template, created.messages, created.config) == ("", (), config)
    with pytest.raises(InvalidInputError, match="template"):
        await versions.create_version("answers", prompt_type, "Hello.", config=config)


async def test_a_number_that_understates_the_change_is_reported(versions: VersionManager) -> None:
    await versions.create_version("greeting", "system", "Hello.", "1.0.0")
    with pytest.warns(UnderstatedVersionWarning, match=r"1\.0\.1 follows 1\.0\.0 .* required variable name"):
        await versions.create_version("greeting", "system", "Hello {{ name }}.", "1.0.1")
    honest = await versions.create_version("greeting", "system", "Hello {{ name }}, {{ day }}.", "2.0.0")
    assert honest.version == "2.0.0"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", "2.0.0"),
        ("^1.0", "1.2.0"),
        ("~1.1.0", "1.1.5"),
        (">=1,<2", "1.2.0"),
        ("1.1.5", "1.1.5"),
        ("3.0.0", "3.0.0"),
        ("^3.0", None),
        ("9.9.9", None),
        ("beta", "1.1.5"),
        ("nothing-bears-this", None),
    ],
)
async def test_get_version_resolves(versions: VersionManager, wanted: str, found: str | None) -> None:
    _, tagged, *_ = await create(versions, "1.0.0", "1.1.5", "1.2.0", "2.0.0")
    await create(versions, "3.0.0", status="draft")
    await versions.tag_version(tagged.version_id, "beta")
    version = await versions.get_version("greeting", "system", wanted)
    assert (None if version is None else version.version) == found


async def test_latest_is_the_highest_that_is_active_or_in_production(versions: VersionManager) -> None:
    await create(versions, "1.0.0")
    await create(versions, "1.1.0", status="production")
    for number, status in (("1.2.0", "archived"), ("1.3.0", "deprecated"), ("1.4.0", "draft")):
        await create(versions, number, status=status)
    latest = await versions.get_version("greeting", "system")
    assert latest is not None
    assert (latest.version, latest.status) == ("1.1.0", VersionStatus.PRODUCTION)


async def test_get_version_by_id_within_a_prompt_finds_only_its_own(versions: VersionManager) -> None:
    (mine,) = await create(versions, "1.0.0")
    await create(versions, "1.0.0", name="other")
    assert await versions.get_version("greeting", "system", version_id=mine.version_id) == mine
    assert await versions.get_version("other", "system", version_id=mine.version_id) is None


async def test_list_is_newest_first_and_history_oldest_first(
    versions: VersionManager, clock: SettableClock
) -> None:
    for number in ("2.0.0", "1.0.0", "1.5.0"):
        clock.advance(seconds=1)
        await create(versions, number)
    listed = await versions.list_versions("greeting", "system")
    assert [version.version for version in listed] == ["1.5.0", "1.0.0", "2.0.0"]
    assert await versions.get_version_history("greeting", "system") == listed[::-1]


async def test_list_takes_what_matches_every_filter(versions: VersionManager) -> None:
    first, second = await create(versions, "1.0.0", "1.0.1")
    (other,) = await create(versions, "1.0.0", name="other", status="draft")
    for tag in ("eu", "fast"):
        await versions.tag_version(first.version_id, tag)
    await versions.tag_version(second.version_id, "eu")
    await versions.promote(second.version_id)

    async def listed(**filters: object) -> set[str]:
        return {version.version_id for version in await versions.list_versions(**filters)}  # type: ignore[arg-type]

    assert await listed(tags=["eu"]) == {first.version_id, second.version_id}
    assert await listed(tags=["eu", "fast"]) == {first.version_id}
    assert await listed(tags="production") == {second.version_id}
    assert await listed(status="active") == {first.version_id}
    assert await listed(status=VersionStatus.PRODUCTION) == {second.version_id}
    assert await listed(prompt_type="system", status="draft") == {other.version_id}
    assert await listed(name="nobody") == set()


async def test_tag_and_untag_change_nothing_the_second_time(versions: VersionManager) -> None:
    (version,) = await create(versions, "1.0.0")
    for _ in range(2):
        assert (await versions.tag_version(version.version_id, "eu")).tags == ("eu",)
    for _ in range(2):
        assert (await versions.untag_version(version.version_id, "eu")).tags == ()


async def test_create_takes_a_tag_only_as_one_of_a_list(versions: VersionManager) -> None:
    with pytest.raises(InvalidInputError, match="tags"):
        await versions.create_version("greeting", "system", "Hello.", tags="beta")
    tagged = await versions.create_version("greeting", "system", "Hello.", tags=["fast", "eu", "fast"])
    assert tagged.tags == ("eu", "fast")


async def test_reads_of_an_unknown_id_find_nothing(versions: VersionManager) -> None:
    assert await versions.get_version_by_id(UNKNOWN) is None
    assert await versions.get_version("nobody", "system") is None
    assert await versions.list_versions("nobody") == []
    assert await versions.get_version_history("nobody", "system") == []
    assert await versions.deployments("nobody", "system") == []
    assert await versions.delete_version(UNKNOWN) is False


@pytest.mark.parametrize("use", ["production", "staging", "running", "paused"])
async def test_a_version_in_use_is_neither_deleted_nor_archived(lab: Lab, use: str) -> None:
    used, _ = await create(lab.versions, "1.0.0", "1.0.1")
    if use in {"production", "staging"}:
        await lab.versions.promote(used.version_id, use)
    else:
        pair = [PromptVariant("1.0.0"), PromptVariant("1.0.1")]
        await lab.experiments.create_experiment("greeting", "system", pair)
        await lab.experiments.update_experiment_status("greeting", use)
    before = await reread(lab.versions, used)
    with pytest.raises(StateError, match="cannot be deleted"):
        await lab.versions.delete_version(used.version_id)
    with pytest.raises(StateError, match=r"cannot be(come)? archived"):
        await lab.versions.update_status(used.version_id, "archived")
    assert await reread(lab.versions, used) == before


async def test_a_version_of_an_experiment_that_has_ended_may_go(lab: Lab) -> None:
    first, second = await create(lab.versions, "1.0.0", "1.0.1")
    pair = [PromptVariant("1.0.0"), PromptVariant("1.0.1")]
    await lab.experiments.create_experiment("greeting", "system", pair)
    await lab.experiments.stop("greeting")
    await lab.versions.update_status(first.version_id, "archived")
    assert await lab.versions.delete_version(second.version_id) is True


async def test_delete_removes_an_unused_version_for_good(versions: VersionManager) -> None:
    first, second = await create(versions, "1.0.0", "1.0.1")
    await versions.tag_version(second.version_id, "eu")
    assert await versions.delete_version(second.version_id) is True
    assert await versions.get_version_by_id(second.version_id) is None
    assert await versions.delete_version(second.version_id) is False
    assert await versions.list_versions() == [first]


async def test_content_that_did_not_change_keeps_its_own_tags_and_status(versions: VersionManager) -> None:
    first = await versions.create_version("greeting", "system", "Hello.", tags=["eu"], metadata={"a": 1})
    again = await versions.create_version(
        "greeting", "system", "Hello.", tags=["us"], status="draft", metadata={"a": 2}, if_changed=True
    )
    assert again == first


async def test_expected_is_an_id_in_any_spelling(versions: VersionManager) -> None:
    (first,) = await create(versions, "1.0.0")
    second = await versions.create_version("greeting", "system", "Hello.", expected=first.version_id.upper())
    await versions.promote(first.version_id)
    assert (await versions.promote(second.version_id, expected=first.version_id.upper())).version == "1.0.1"
