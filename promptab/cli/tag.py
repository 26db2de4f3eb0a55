"""`promptab tag`: labels on versions."""

from __future__ import annotations

from typing import Annotated

import typer

from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import emit, run
from promptab.cli.references import find_exactly, parse_reference
from promptab.lab import Lab
from promptab.models import PromptVersion


def tag(
    reference: ReferenceArgument,
    label: Annotated[
        str, typer.Argument(metavar="TAG", help="Such as reviewed or team/search.", show_default=False)
    ],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag off.")] = False,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a tag on a version, or take it off. The tags production and staging say what is live there.

    $ promptab tag system/greeting@1.0.0 reviewed
    $ promptab tag system/greeting@1.0.0 reviewed --remove
    """

    async def work(lab: Lab) -> PromptVersion:
        version = await find_exactly(lab, parse_reference(reference, prompt_type))
        change = lab.versions.untag_version if remove else lab.versions.tag_version
        return await change(version.version_id, label)

    version = run(work, url=url)
    tags = ", ".join(version.tags) or "none"
    emit(version, as_json=as_json, human=lambda to: to.print(f"{version.label}: tags {tags}"))
