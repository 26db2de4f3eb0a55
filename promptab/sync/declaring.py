"""The file that says what a version of the store says."""

from __future__ import annotations

from promptab.cases import Case
from promptab.library import PromptSource
from promptab.models import PromptVersion, VersionStatus


def source_of(
    version: PromptVersion, present: PromptSource | None, tests: tuple[Case, ...] | None
) -> PromptSource:
    """Return what the file is to declare, with these cases.

    What the present file asks of its next version stays, save what no longer fits: a number that is taken by now, and
    the wish for a draft of something that has left that state.
    """
    draft = version.status == VersionStatus.DRAFT
    wish = None if present is None or present.status == VersionStatus.DRAFT else present.status
    return PromptSource(
        name=version.name,
        prompt_type=version.prompt_type,
        template=version.template,
        messages=version.messages,
        defaults=version.defaults,
        validation=version.validation,
        config=version.config,
        metadata=version.metadata,
        version=version.version if present is not None and present.version is not None else None,
        bump=None if present is None else present.bump,
        status=VersionStatus.DRAFT if draft else wish,
        tags=() if present is None else present.tags,
        tests=tests,
    )
