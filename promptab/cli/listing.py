"""`promptab list` and `promptab log`: what there is, and how it came to be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from promptab.cli.options import JsonOption, PromptArgument, TypeOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.references import Prompt, find_prompt, parse_prompt, sorted_by_number
from promptab.cli.wording import counted, day_and_minute, free_tags
from promptab.lab import Lab
from promptab.lifecycle import SERVED_STATUSES
from promptab.models import PromptVersion

if TYPE_CHECKING:
    from rich.console import Console

_HASH_CHARS = 12


def list_versions(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A prompt; all of them without it.", show_default=False),
    ] = None,
    *,
    prompt_type: TypeOption = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only versions with this tag.", show_default=False),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status", metavar="STATUS", help="Only versions with this status.", show_default=False
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List prompts with what is live of each, or the versions of one prompt.

    With --tag or --status, the versions that match are listed.

    $ promptab list
    $ promptab list system/greeting --status active
    """

    async def work(lab: Lab) -> list[PromptVersion]:
        written = None if name is None else parse_prompt(name, prompt_type)
        found = await lab.versions.list_versions(
            written and written.name, written.prompt_type if written else prompt_type, tag, status
        )
        if written is not None and not found:
            await find_prompt(lab, written)
        return found

    found = run(work, url=url)
    if name is None and not tag and status is None:
        overview = _overview(found)
        emit(
            [prompt._asdict() for prompt in overview],
            as_json=as_json,
            human=lambda to: _print_prompts(to, overview),
        )
    else:
        emit(found, as_json=as_json, human=lambda to: _print_versions(to, found))


def log(
    prompt: PromptArgument,
    *,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every version of a prompt, oldest first: who made it from what, and what became of it.

    $ promptab log system/greeting
    """

    async def work(lab: Lab) -> tuple[Prompt, list[PromptVersion]]:
        found = await find_prompt(lab, parse_prompt(prompt, prompt_type))
        return found, await lab.versions.get_version_history(found.name, found.prompt_type)

    found, history = run(work, url=url)
    emit(history, as_json=as_json, human=lambda to: _print_history(to, found, history))


class _PromptOverview(NamedTuple):
    """One prompt as a line of the list."""

    prompt_type: str
    name: str
    latest: str | None
    """The highest active or production version."""
    production: str | None
    staging: str | None
    versions: int


def _overview(versions: Sequence[PromptVersion]) -> list[_PromptOverview]:
    def key(version: PromptVersion) -> tuple[str, str]:
        return version.prompt_type.value, version.name

    prompts = []
    for (kind, name), group in groupby(sorted(versions, key=key), key=key):
        highest_first = sorted_by_number(group)
        served = [version.version for version in highest_first if version.status in SERVED_STATUSES]
        prompts.append(
            _PromptOverview(
                prompt_type=kind,
                name=name,
                latest=next(iter(served), None),
                production=_bearing(highest_first, "production"),
                staging=_bearing(highest_first, "staging"),
                versions=len(highest_first),
            )
        )
    return prompts


def _bearing(versions: Sequence[PromptVersion], tag: str) -> str | None:
    return next((version.version for version in versions if tag in version.tags), None)


def _print_prompts(to: Console, prompts: Sequence[_PromptOverview]) -> None:
    if not prompts:
        to.print(
            "There are no prompts yet. Create one with `promptab new`, or bring files in with `promptab sync push`."
        )
        return
    rows = table("prompt", "latest", "production", "staging", "versions", right=["versions"])
    for prompt in prompts:
        rows.add_row(
            f"{prompt.prompt_type}/{prompt.name}",
            prompt.latest or "none active",
            prompt.production or "-",
            prompt.staging or "-",
            str(prompt.versions),
        )
    to.print(rows)


def _print_versions(to: Console, versions: Sequence[PromptVersion]) -> None:
    if not versions:
        to.print("No version matches.")
        return
    prompts = {(version.prompt_type, version.name) for version in versions}
    if len(prompts) == 1:
        to.print(f"{versions[0].prompt_type}/{versions[0].name}", style="bold")
    rows = table("version", "status", "tags", "created (UTC)", "by", "content")
    for version in versions:
        rows.add_row(
            version.version if len(prompts) == 1 else version.label,
            version.status.value,
            free_tags(version),
            day_and_minute(version.created_at),
            version.created_by or "-",
            version.content_hash[:_HASH_CHARS],
        )
    to.print(rows)
    to.print(counted(len(versions), "version"))


def _print_history(to: Console, prompt: Prompt, history: Sequence[PromptVersion]) -> None:
    numbers = {version.version_id: version.version for version in history}
    to.print(prompt.label, style="bold")
    rows = table("version", "from", "status", "tags", "created (UTC)", "by", "message")
    for version in history:
        rows.add_row(
            version.version,
            _parent(version, numbers),
            version.status.value,
            free_tags(version),
            day_and_minute(version.created_at),
            version.created_by or "-",
            _message(version.metadata),
        )
    to.print(rows)


def _parent(version: PromptVersion, numbers: dict[str, str]) -> str:
    if version.parent_version is None:
        return "-"
    return numbers.get(version.parent_version, "deleted")


def _message(metadata: Any) -> str:
    message = metadata.get("message")
    return message if isinstance(message, str) else ""
