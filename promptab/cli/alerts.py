"""`promptab alerts`: what was told, what has not arrived, and sending it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.arguments import read_time
from promptab.cli.exit_codes import ExitCode
from promptab.cli.experiment_policy import POLICY_FILE, PolicyFileOption, declared_in
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, run, visible
from promptab.cli.pruning import BeforeOption, DropOption, note_what_was_kept_back, print_pruning
from promptab.cli.wording import counted, moment
from promptab.delivering.outbox import LISTED
from promptab.lab import Lab

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.alerts.alert import Severity
    from promptab.alerts.delivery import Delivery, ToldAlert
    from promptab.delivering.passes import DeliveryReport

app = typer.Typer(invoke_without_command=True)

_STYLES: dict[Severity, str] = {"info": "bold", "warning": "bold yellow", "critical": "bold red"}

AlertArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The id of an alert, as listed.", show_default=False)
]


@app.callback()
def alerts(
    context: typer.Context,
    *,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment", metavar="EXPERIMENT", help="Only those about this one.", show_default="all"
        ),
    ] = None,
    dead: Annotated[
        bool,
        typer.Option("--dead", help="Only those that were given up on their way.", show_default=False),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many.")] = LISTED,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List alerts, the newest first, and what became of each on its way.

    They are sent by `promptab watch`, by `promptab alerts deliver`, and by programs that deliver their own; where to,
    promptab.yaml says under alerts: (log, webhooks).

    $ promptab alerts --dead
    """
    if context.invoked_subcommand is not None:
        return
    found = run(lambda lab: lab.alerts.list_alerts(experiment, dead=dead, limit=limit), url=url)
    nothing = "no alert was given up" if dead else "no alerts so far"
    emit(found, as_json=as_json, human=lambda to: _print_alerts(to, found, nothing))


@app.command()
def retry(
    alert_id: AlertArgument,
    *,
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel", metavar="NAME", help="Only to this one.", show_default="all that gave it up"
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have an alert that was given up sent again, when alerts are delivered next.

    Exit code 6 where it was not given up.

    $ promptab alerts retry alert_61c17975fb7eb90ec7bd5f5a1f2d6ba2
    """
    channels = run(lambda lab: lab.alerts.retry(alert_id, channel), url=url)
    document = {"alert_id": alert_id, "channels": channels}
    emit(document, as_json=as_json, human=lambda to: to.print(f"due again: {', '.join(channels)}"))


@app.command()
def deliver(
    *, policy_file: PolicyFileOption = POLICY_FILE, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Send what is due, once, to the channels under alerts: in promptab.yaml: for cron, beside `promptab decide`.

    What fails is tried again by later runs, 12 times over about six hours. Exit code 8 where one was given up now.

    $ promptab alerts deliver
    """
    settings = declared_in(policy_file).alerts

    async def work(lab: Lab) -> DeliveryReport:
        lab.alerts.declare(settings)
        return await lab.deliver_alerts()

    log_to_stderr()
    report = run(work, url=url)
    emit(report._asdict(), as_json=as_json, human=lambda to: _print_report(to, report))
    if report.dead:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command()
def prune(
    *,
    before: BeforeOption,
    dead: Annotated[
        bool,
        typer.Option("--dead", help="Those too that were given up on their way.", show_default=False),
    ] = False,
    yes: DropOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop alerts that were told before a time, at least two days ago, and what became of them.

    What is still to be delivered is kept, and counted by its channel; `promptab alerts forget` is for one that there is
    no longer.

    $ promptab alerts prune --before 90d
    $ promptab alerts prune --before 90d --yes
    """
    limit = read_time("--before", before, now=datetime.now(UTC))
    report = run(lambda lab: lab.alerts.prune(limit, dead=dead, apply=yes), url=url)
    emit(report, as_json=as_json, human=lambda to: print_pruning(to, report, "alerts"))
    note_what_was_kept_back(report)


@app.command()
def forget(
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="Its name in promptab.yaml.", show_default=False)
    ],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a channel that there is no longer: what waits for it is delivered no more.

    $ promptab alerts forget oncall
    """
    waiting = run(lambda lab: lab.alerts.forget(channel), url=url)
    document = {"channel": channel, "waiting": waiting}
    told = f"{visible(channel)} is forgotten; {counted(waiting, 'alert')} waited for it"
    emit(document, as_json=as_json, human=lambda to: to.print(told, soft_wrap=True))


def log_to_stderr() -> None:
    """Let the log of alerts be seen: one line for each, and for each attempt that failed."""
    logger = logging.getLogger("promptab.alerts")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def _print_alerts(to: Console, found: Sequence[ToldAlert], nothing: str) -> None:
    from rich.padding import Padding  # noqa: PLC0415 - as long to import as a small command takes to run
    from rich.text import Text  # noqa: PLC0415

    if not found:
        to.print(nothing)
    for told in found:
        alert = told.alert
        head = Text.assemble(
            (f"{moment(alert.at)}  ", "dim"),
            (alert.severity, _STYLES[alert.severity]),
            f"  {visible(alert.name)}: {alert.kind.replace('_', ' ')}",
        )
        to.print(head)
        lines = [visible(alert.sentence), *map(_way, told.deliveries)]
        to.print(Padding("\n".join(lines), (0, 0, 0, 4), expand=False))
        to.print(Padding(Text(alert.alert_id, "dim"), (0, 0, 0, 4), expand=False))


def _way(delivery: Delivery) -> str:
    """Say how far it has come."""
    tried = counted(delivery.attempts, "attempt")
    match delivery.status:
        case "delivered":
            return f"{delivery.channel}: delivered {moment(delivery.changed_at)}"
        case "dead":
            return f"{delivery.channel}: given up after {tried}: {delivery.error}"
        case "pending" if delivery.attempts == 0:
            return f"{delivery.channel}: waits to be delivered"
    why = f": {delivery.error}" if delivery.error else ""
    return f"{delivery.channel}: not delivered after {tried}{why}; due {moment(delivery.due_at)}"


def _print_report(to: Console, report: DeliveryReport) -> None:
    said = f"{counted(report.delivered, 'alert')} delivered"
    if report.postponed:
        said += f", {report.postponed} to be tried again"
    if report.dead:
        said += f", {report.dead} given up (list them with `promptab alerts --dead`)"
    to.print(said)
