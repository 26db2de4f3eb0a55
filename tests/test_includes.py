"""Including other prompts: pinned when the version is made, and part of what it is."""

from __future__ import annotations

import pytest

from promptab import InvalidInputError, Lab, PromptVersion, StateError, TemplateError, VersionManager


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(versions: VersionManager, *numbers: str, name: str) -> list[PromptVersion]:
    return [await versions.create_version(name, "system", f"Text of {number}.", number) for number in numbers]


async def test_includes_are_pinned_to_the_best_match_of_their_range(lab: Lab) -> None:
    _, tone, _ = await create(lab.versions, "1.0.0", "1.4.0", "2.0.0", name="tone")
    reference = "system/tone@^1.0"
    including = await lab.versions.create_version("greeting", "system", f'{{% include "{reference}" %}} Hi.')
    await create(lab.versions, "1.9.0", name="tone")
    assert including.includes == {reference: tone.version_id}
    assert (await lab.choose("greeting")).render() == "Text of 1.4.0. Hi."


async def test_includes_nest_and_ask_for_the_variables_of_what_they_include(lab: Lab) -> None:
    await lab.versions.create_version("name", "system", "dear {{ name }}")
    await lab.versions.create_version("hello", "system", 'Hello {% include "system/name" %}')
    await lab.versions.create_version("greeting", "user", '{% include "system/hello@1.0.0" %}!')
    choice = await lab.choose("greeting", "user")
    assert choice.render(name="Ada") == "Hello dear Ada!"
    with pytest.raises(InvalidInputError, match="name"):
        choice.render()


async def test_content_hash_follows_what_an_include_is_pinned_to(versions: VersionManager) -> None:
    text = 'Hi. {% include "system/tone" %}'
    await create(versions, "1.0.0", name="tone")
    before = await versions.create_version("greeting", "system", text)
    await create(versions, "1.0.1", name="tone")
    after = await versions.create_version("greeting", "system", text, if_changed=True)
    assert after.version == "1.0.1"
    assert after.content_hash != before.content_hash


@pytest.mark.parametrize("reference", ["system/tone", "system/tone@^3.0", "system/tone@1.0.7"])
async def test_include_of_what_does_not_exist_is_refused_by_name(
    versions: VersionManager, reference: str
) -> None:
    if "@" in reference:
        await create(versions, "1.0.0", name="tone")
    with pytest.raises(TemplateError, match=reference.replace("^", r"\^")):
        await versions.create_version("greeting", "system", f'{{% include "{reference}" %}}')
    assert await versions.get_version("greeting", "system") is None


async def test_include_that_leads_back_to_the_prompt_itself_is_refused(versions: VersionManager) -> None:
    await create(versions, "1.0.0", name="a")
    await versions.create_version("b", "system", '{% include "system/a" %}')
    with pytest.raises(TemplateError, match="system/a -> system/b -> system/a"):
        await versions.create_version("a", "system", '{% include "system/b" %}')
    assert len(await versions.list_versions("a")) == 1


async def test_an_included_version_is_not_deleted_but_may_be_archived(lab: Lab) -> None:
    (included,) = await create(lab.versions, "1.0.0", name="greeting")
    await lab.versions.create_version("reader", "system", 'So: {% include "system/greeting@1.0.0" %}')
    with pytest.raises(StateError, match=r"included by system/reader@1\.0\.0"):
        await lab.versions.delete_version(included.version_id)
    await lab.versions.update_status(included.version_id, "archived")
    assert (await lab.choose("reader")).render() == "So: Text of 1.0.0."
