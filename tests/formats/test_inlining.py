"""A version is written with the texts that it was pinned to, and says what it said."""

from __future__ import annotations

import pytest

from promptab import Lab
from promptab.content import compile_version
from promptab.errors import TemplateLimitError
from promptab.formats import whole_source
from promptab.library import PromptSource
from promptab.models import PromptVersion
from tests.formats.rendering import rendered


async def whole(lab: Lab, version: PromptVersion) -> tuple[PromptSource, str]:
    """The version without includes, and what it renders with them."""
    included = await lab.store.read(lambda tx: tx.versions.with_includes(version))
    prompt = compile_version(version, included)
    given = {name: name.upper() for name in prompt.required}
    return whole_source(version, included), prompt.text(given)


@pytest.mark.parametrize(
    "template",
    [
        "a{% include 'user/tone' %}b",
        "a {%- include 'user/tone' -%} b {% include \"user/tone@1.0.0\" %}",
        "{% raw %}{% include 'user/no' %}{% endraw %}{% include 'user/tone' %}",
        "{{ '{' }}{% include 'user/brace' %}{% include 'user/empty' %}{{ x }}",
        "{%- if x -%} {% include 'user/tone' %} {%- endif -%} {% include 'user/brace' %}",
        "{% set mood = 'own' %}{% include 'user/sets' %}{{ mood }}",
        "a {% include 'user/signs' %} b",
        "{% for each in 'ab' %}{% include 'user/tone' %}{{ each }}{% endfor %}",
    ],
)
async def test_a_version_says_the_same_without_its_includes(lab: Lab, template: str) -> None:
    create = lab.versions.create_version
    await create("tone", "user", "be {{ mood }}\n", defaults={"mood": "kind", "x": "inner"})
    await create("brace", "user", "{ % {")
    await create("empty", "user", "")
    await create("signs", "user", "{#- gone -#} {{- mood -}} {#- gone #}", defaults={"mood": "calm"})
    await create("sets", "user", "{% set mood = 'inner' %}{% include 'user/tone' %}")
    version = await create("a", "system", template, defaults={"x": "outer"})
    await create("tone", "user", "be rude", defaults={"mood": "rude"})
    source, text = await whole(lab, version)
    assert "{% include 'user/tone' %}" not in source.template
    assert rendered(source, x="X") == [("system", text.replace("outer", "X"))]
    assert source.defaults["x"] == "outer"


async def test_texts_that_double_at_every_level_are_refused_at_once(lab: Lab) -> None:
    create = lab.versions.create_version
    await create("level0", "user", "x" * 100)
    version = None
    for level in range(1, 12):
        template = f"{{% include 'user/level{level - 1}' %}}" * 2
        version = await create(f"level{level}", "user", template)
    assert version is not None
    included = await lab.store.read(lambda tx: tx.versions.with_includes(version))
    with pytest.raises(TemplateLimitError, match="source_chars"):
        whole_source(version, included)
