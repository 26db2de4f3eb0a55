"""`promptab decide`, `decisions`, `approve` and `override`: what is done about an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from promptab.cli.arguments import actor_or_user
from promptab.cli.decision_view import print_decision, print_decisions, what
from promptab.cli.exit_codes import ExitCode
from promptab.cli.options import ActorOption, ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.decisions.deciding import redecide
from promptab.decisions.decision import Action, Decision
from promptab.decisions.stored import StoredDecision
from promptab.errors import InvalidInputError, StateError
from promptab.lab import Lab

if TYPE_CHECKING:
    from rich.console import Console


def decide(
    experiment: ExperimentArgument,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, where nobody has to agree.")] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay",
            metavar="DECISION",
            help="Make a stored decision again from its stored inputs: its id, or how that begins.",
            show_default=False,
        ),
    ] = None,
    actor: Annotated[
        str, typer.Option("--actor", metavar="NAME", help="Who applies it, for the history.")
    ] = "promptab",
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at an experiment by its policy and say what is to be done, and why; the decision is stored.

    With --apply it is done, in one transaction; where anything has moved since the look nothing is, so that it is safe
    to run from cron, twice, and beside people.

    Exit codes: 0 decided, and with --apply done, or there is nothing to do, or a person has to agree; 4 something
    moved meanwhile and nothing was done; 6 the experiment has no policy or does not run; 8 --replay came to something
    else; 7 the store could not be reached.

    $ promptab decide greeting
    $ promptab decide greeting --apply
    $ promptab decide greeting --replay 3f2a9c1e
    """
    if replay is not None:
        if apply:
            raise InvalidInputError("--apply", "", "left out with --replay", "a replay does nothing")
        _replay(experiment, replay, url=url, as_json=as_json)
        return

    async def work(lab: Lab) -> StoredDecision:
        stored = await lab.decide(experiment)
        return await lab.apply(stored, actor=actor) if apply else stored

    _show(run(work, url=url), as_json=as_json)


def decisions(
    experiment: ExperimentArgument,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="The newest so many.")] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was decided about an experiment and what became of it, newest first; also after its deletion.

    $ promptab decisions greeting
    $ promptab decisions greeting --limit 1 --json
    """
    found = run(lambda lab: lab.decisions(experiment, limit=limit), url=url)
    emit(found, as_json=as_json, human=lambda to: print_decisions(to, found))


def approve(
    experiment: ExperimentArgument,
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", show_default=False)
    ] = "",
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply the decision that waits for a person, unless something has moved since it was made (exit code 4).

    $ promptab approve greeting --reason "read fifty answers"
    """
    approved = run(lambda lab: lab.approve(experiment, reason=reason, actor=actor_or_user(actor)), url=url)
    _show(approved, as_json=as_json)


def override(
    experiment: ExperimentArgument,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="promote, rollback, pause, continue, stop, or ramp for its next step.",
            show_default=False,
        ),
    ],
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", show_default=False)
    ],
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="KEY",
            help="Which to promote or roll back, or the winner of stop.",
            show_default="the only candidate",
        ),
    ] = None,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do what you say at once, whatever the policy says, and keep it as a decision and in the deployment history.

    A rollback takes a variant out for everybody, deprecates its version, and takes production back where that is it.

    $ promptab override greeting rollback --variant 1.1.0 --reason "it answers in the wrong language"
    """
    done = run(
        lambda lab: lab.override(
            experiment,
            cast("Action", action),  # the manager refuses what is none
            variant=variant,
            reason=reason,
            actor=actor_or_user(actor),
        ),
        url=url,
    )
    _show(done, as_json=as_json)


def _show(stored: StoredDecision, *, as_json: bool) -> None:
    emit(stored, as_json=as_json, human=lambda to: print_decision(to, stored))
    if stored.status == "superseded":
        raise typer.Exit(int(ExitCode.CONFLICT))


def _replay(experiment: str, decision_id: str, *, url: str | None, as_json: bool) -> None:
    stored = run(lambda lab: lab.rollout.decision(experiment, decision_id), url=url)
    before = stored.decision
    if before.inputs is None:
        raise StateError(
            f"decision {stored.decision_id} was a person's: there is nothing to make it again from"
        )
    again = redecide(before.inputs)
    differing = _differing(before, again)
    document = {"same": not differing, "differing": differing, "stored": stored, "again": again}
    emit(
        document,
        as_json=as_json,
        human=lambda to: _print_replay(to, stored.decision_id, before, again, differing),
    )
    if differing:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _differing(before: Decision, again: Decision) -> list[str]:
    """Return the fields that differ; what both were made from is the same."""
    fields = (name for name in type(before).model_fields if name != "inputs")
    return [name for name in fields if getattr(before, name) != getattr(again, name)]


def _print_replay(
    to: Console, decision_id: str, before: Decision, again: Decision, differing: list[str]
) -> None:
    if not differing:
        to.print(f"The same again: {what(again)}. {again.sentence}")
        return
    to.print(
        f"Decision {decision_id} comes out differently: this promptab has other rules or another policy digest."
    )
    for name in differing:
        values: tuple[Any, Any] = getattr(before, name), getattr(again, name)
        to.print(f"{name}: {values[0]!s} was stored, {values[1]!s} comes out")
