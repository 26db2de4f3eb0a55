"""`promptab promote`, `rollback` and `deployments`: what is live, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.arguments import actor_or_user, read_time
from promptab.cli.experiment_policy import POLICY_FILE, PolicyFileOption, chosen_policy
from promptab.cli.options import (
    ActorOption,
    EnvironmentOption,
    JsonOption,
    PromptArgument,
    ReasonOption,
    ReferenceArgument,
    TypeOption,
    UrlOption,
)
from promptab.cli.output import emit, run, table, visible
from promptab.cli.references import Prompt, find_exactly, find_prompt, parse_prompt, parse_reference
from promptab.cli.wording import moment
from promptab.decisions.guard import Guard
from promptab.deploying import UNSET
from promptab.lab import Lab
from promptab.models import Deployment, PromptVersion

if TYPE_CHECKING:
    from rich.console import Console


def promote(
    reference: ReferenceArgument,
    *,
    environment: EnvironmentOption = "production",
    reason: ReasonOption = "",
    expected: Annotated[
        str | None,
        typer.Option(
            "--expected",
            metavar="VERSION",
            help="Only if this is live now; none for nothing. Otherwise exit code 4.",
            show_default=False,
        ),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Only if no case that passed on what is live fails on this version; otherwise exit code 8.",
        ),
    ] = False,
    guard: Annotated[
        str | None,
        typer.Option(
            "--guard",
            metavar="POLICY",
            help="Watch it from now on by the guardrails of this policy of promptab.yaml.",
            show_default=False,
        ),
    ] = None,
    policy_file: PolicyFileOption = POLICY_FILE,
    prompt_type: TypeOption = None,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version live in an environment. Doing it again changes nothing.

    --gate goes by the results that `promptab test` has kept, and refuses what was not tried. With --guard `promptab
    watch` rolls the version back by itself once a guardrail has failed.

    $ promptab promote system/greeting@1.0.0 --reason "reviewed by the support team"
    $ promptab promote system/greeting@latest --environment staging
    """
    policy = None if guard is None else chosen_policy(guard, policy_file).policy

    async def work(lab: Lab) -> Deployment:
        version = await find_exactly(lab, parse_reference(reference, prompt_type))
        return await lab.versions.promote(
            version.version_id,
            environment,
            reason=reason,
            expected=UNSET if expected is None else None if expected == "none" else expected,
            actor=actor_or_user(actor),
            gate=gate,
            guard=policy,
        )

    move = run(work, url=url)
    emit(move, as_json=as_json, human=lambda to: _print_promotion(to, move, guarded=policy is not None))


def rollback(
    prompt: PromptArgument,
    *,
    environment: EnvironmentOption = "production",
    reason: ReasonOption = "",
    expected: Annotated[
        str | None,
        typer.Option(
            "--expected",
            metavar="BAD_VERSION",
            help="Do nothing unless this is live: a script is then safe to run twice.",
            show_default=False,
        ),
    ] = None,
    prompt_type: TypeOption = None,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to what was live before, and deprecate what is live now. Again, it goes back one more.

    Experiments that serve the version are paused, so that nobody gets it from there.

    $ promptab rollback system/greeting --expected 1.1.0 --reason "answers in the wrong language"
    """

    async def work(lab: Lab) -> tuple[Prompt, Deployment | None]:
        found = await find_prompt(lab, parse_prompt(prompt, prompt_type))
        move = await lab.versions.rollback(
            found.name,
            found.prompt_type,
            environment,
            reason=reason,
            expected=UNSET if expected is None else expected,
            actor=actor_or_user(actor),
        )
        return found, move

    found, move = run(work, url=url)
    emit(
        {"rolled_back": move is not None, "deployment": move},
        as_json=as_json,
        human=lambda to: _print_rollback(to, found, move, environment=environment, expected=expected),
    )


def deployments(
    prompt: PromptArgument,
    *,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment", "-e", metavar="ENVIRONMENT", help="production or staging.", show_default="both"
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="Say what was live then (in production unless told): 2025-06-30T14:00, or 12h for 12 hours ago.",
            show_default=False,
        ),
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who made what live, when and why, in the order of the moves; or what was live at a time.

    $ promptab deployments system/greeting
    $ promptab deployments system/greeting --at 2h
    """
    time = None if at is None else read_time("--at", at, now=datetime.now(UTC))

    async def history(lab: Lab) -> tuple[Prompt, list[Deployment], list[Guard]]:
        found = await find_prompt(lab, parse_prompt(prompt, prompt_type))
        moves = await lab.versions.deployments(found.name, found.prompt_type, environment)
        return found, moves, await lab.versions.guards(found.name, found.prompt_type)

    async def live(lab: Lab) -> PromptVersion | None:
        assert time is not None  # noqa: S101 - narrows the type
        found = await find_prompt(lab, parse_prompt(prompt, prompt_type))
        return await lab.versions.deployed_at(
            found.name, found.prompt_type, time, environment or "production"
        )

    if time is not None:
        version = run(live, url=url)
        where = environment or "production"
        emit(
            {"at": time.astimezone(UTC), "environment": where, "version": version},
            as_json=as_json,
            human=lambda to: to.print(_live_then(version, where, time)),
        )
        return
    found, moves, watching = run(history, url=url)
    emit(moves, as_json=as_json, human=lambda to: _print_history(to, found, moves, watching))


def _print_promotion(to: Console, move: Deployment, *, guarded: bool) -> None:
    to.print(_live_now(move))
    # the entry may be from before the guard, where the version was live already
    if guarded:
        to.print("guarded: `promptab watch` takes it back once a guardrail has failed")
    gate = (move.evidence or {}).get("gate") or {}
    if gate.get("failed"):
        failed = ", ".join(gate["failed"])
        to.print(visible(f"these cases fail on it, as none of them passed before: {failed}"), soft_wrap=True)


def _live_now(move: Deployment) -> str:
    before = f" (before: {move.previous_version})" if move.previous_version else ""
    return f"{move.prompt_type}/{move.name}@{move.version} is live in {move.environment}{before}"


def _live_then(version: PromptVersion | None, environment: str, time: datetime) -> str:
    then = f"{moment(time.astimezone(UTC))} UTC"
    if version is None:
        return f"Nothing that still exists was live in {environment} at {then}."
    return f"{version.label} was live in {environment} at {then}."


def _print_rollback(
    to: Console, prompt: Prompt, move: Deployment | None, *, environment: str, expected: str | None
) -> None:
    if move is None:
        to.print(f"Nothing to do: {environment} of {prompt.label} is not {expected}.")
        return
    to.print(_live_now(move))
    for experiment in _paused(move):
        to.print(f"paused the experiment {experiment}, which served {move.previous_version}")


def _paused(move: Deployment) -> list[Any]:
    return list((move.evidence or {}).get("paused_experiments", ()))


def _print_history(
    to: Console, prompt: Prompt, moves: Sequence[Deployment], watching: Sequence[Guard]
) -> None:
    if not moves:
        to.print(f"{prompt.label} was never live anywhere.")
        return
    to.print(prompt.label, style="bold")
    rows = table("at (UTC)", "environment", "action", "from", "to", "by", "reason")
    for move in moves:
        rows.add_row(
            moment(move.at),
            move.environment,
            move.action,
            move.previous_version or "-",
            move.version or "-",
            move.actor or "-",
            move.reason,
        )
    to.print(rows)
    for guard in watching:
        until = "until it is moved" if guard.until is None else f"until {moment(guard.until)}"
        lines = ", ".join(guardrail.text for guardrail in guard.policy.guardrails)
        to.print(f"{guard.version} is guarded in {guard.environment} {until}: {lines}")
