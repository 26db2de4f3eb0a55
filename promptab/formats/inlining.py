"""A version with the texts that it includes put in: what leaves the store takes along what it was pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes

from promptab.cases import Case
from promptab.formats.jinja_tree import check_size
from promptab.formats.jinja_trimming import Token, settled
from promptab.library import PromptSource
from promptab.models import PromptVersion
from promptab.templates import Limits
from promptab.templates.syntax import parse

_ASSIGNING = (nodes.Assign, nodes.AssignBlock, nodes.Macro)


def whole_source(
    version: PromptVersion, versions: Mapping[str, PromptVersion], cases: tuple[Case, ...] = ()
) -> PromptSource:
    """Return what a version declares, without includes, and the cases of its prompt.

    `versions` holds what it includes, by id.

    Number, status and tags stay behind: they are the store's. Raises `TemplateLimitError` where a text becomes larger
    than a template may be.
    """
    inliner = _Inliner(versions)
    return PromptSource(
        name=version.name,
        prompt_type=version.prompt_type,
        template=inliner.text(version.template, version),
        messages=tuple(
            message.model_copy(update={"content": inliner.text(message.content, version)})
            for message in version.messages
        ),
        defaults=inliner.defaults(version),
        validation=version.validation,
        config=version.config,
        metadata=version.metadata,
        tests=cases or None,
    )


class _Inliner:
    """Puts texts in. Each included version is worked out once, as pairs in one another double at each level."""

    def __init__(self, versions: Mapping[str, PromptVersion]) -> None:
        self.versions = versions
        self.bodies: dict[str, str] = {}
        self.merged: dict[str, dict[str, Any]] = {}

    def defaults(self, version: PromptVersion) -> dict[str, Any]:
        """As a render takes them: outer before inner, earlier before later."""
        if version.version_id not in self.merged:
            merged = dict(version.defaults)
            for version_id in version.includes.values():
                merged = self.defaults(self.versions[version_id]) | merged
            self.merged[version.version_id] = merged
        return self.merged[version.version_id]

    def text(self, source: str, version: PromptVersion) -> str:
        """A template of the version; without includes it stays as its author wrote it."""
        return self.inlined(source, version) if version.includes else source

    def inlined(self, source: str, version: PromptVersion) -> str:
        written: list[str] = []
        tag: list[Token] = []
        size = 0
        for token in settled(source, label=version.label):
            tag.append(token)
            if tag[0][0] != "block_begin" or token[0] == "block_end":
                written.append(self.tag(tag, version))
                size += len(written[-1])
                check_size(size, label=version.label)
                tag = []
        return "".join(written)

    def tag(self, tag: list[Token], version: PromptVersion) -> str:
        words = [value for kind, value in tag if kind in {"name", "string"}]
        if tag[0][0] == "block_begin" and words[0] == "include":
            return self.body(self.versions[version.includes[words[1][1:-1]]])
        return "".join(value for _, value in tag)

    def body(self, version: PromptVersion) -> str:
        if version.version_id not in self.bodies:
            body = self.inlined(version.template, version)
            tree = parse(version.template, name=version.label, limits=Limits()).tree
            # what an included text sets is its own, so it is given a scope where it sets anything
            sets_any = next(tree.find_all(_ASSIGNING), None) is not None
            self.bodies[version.version_id] = f"{{% with %}}{body}{{% endwith %}}" if sets_any else body
        return self.bodies[version.version_id]
