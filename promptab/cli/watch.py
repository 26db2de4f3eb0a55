"""`promptab watch`: the loop that looks at experiments and guarded versions, and acts by their policies."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import re
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

import promptab
from promptab.cli.alerts import log_to_stderr
from promptab.cli.decision_view import outcome, what
from promptab.cli.exit_codes import ExitCode
from promptab.cli.experiment_policy import POLICY_FILE, PolicyFileOption, declared_in
from promptab.cli.options import UrlOption
from promptab.cli.output import console, note, visible
from promptab.cli.wording import moment
from promptab.errors import InvalidInputError, NotFoundError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from promptab.alerts.channel import AlertSettings
    from promptab.lab import Lab
    from promptab.library.policies import PolicyFile
    from promptab.watching import WatchUpdate

_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|h|d)?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

DEFAULT_SECONDS = 30.0
"""Between two looks."""

OPEN_SECONDS = 10.0
"""How long the store is waited for before the watch begins, and says that it is away."""

_UNSHOWN = {"decision": {"standing": True, "decision": {"inputs": True}}}
"""What a decision was made from is in the store, and too long for a line."""


def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Experiments, or prompts whose live version is guarded.",
            show_default="all",
        ),
    ] = None,
    *,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval",
            metavar="SPAN",
            help="Between two looks: 30s, 5m, 6h.",
            show_default="30s, or check_interval_hours of the ab_testing block",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and end, for cron.", show_default=False)
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Do what is decided, or only decide.")
    ] = True,
    policy_file: PolicyFileOption = POLICY_FILE,
    url: UrlOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a line.", show_default=False)
    ] = False,
) -> None:
    """Look at everything that has a policy or a guard, again and again, and do what is decided.

    Run it on as many machines as you like: one leads and applies, the others stand by, and one of them takes over
    within two intervals. A line is printed when something has changed, and with --json for every look. SIGTERM and
    Ctrl-C end it at once, with nothing half-applied and exit code 0. Alerts are delivered beside the looks, to the log
    (on standard error) and to the webhooks that promptab.yaml declares. Exit codes: 3 a name is
    unknown; of --once also 0 fine, 1 a look failed, 7 the store is away, 130 interrupted.

    $ promptab promote system/support_reply@1.2.0 --guard careful
    $ promptab watch
    $ promptab watch support_reply --interval 5m
    $ promptab watch --once --json
    """
    declared = declared_in(policy_file)
    seconds = (
        _seconds_between(declared, policy_file) if interval is None else read_span("--interval", interval)
    )
    shown = _Shown(as_json=as_json)
    log_to_stderr()
    code = asyncio.run(_watched(shown, url, names or None, seconds, declared.alerts, once=once, apply=apply))
    if code != ExitCode.OK:
        raise typer.Exit(code)


def read_span(field: str, text: str) -> float:
    """Return the seconds of 30s, 5m, 6h or 1d; of a bare number, that many."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(field, text, "a span of time such as 30s, 5m or 6h")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def _seconds_between(declared: PolicyFile, path: Path) -> float:
    """Return the seconds between two looks, as the project declares them."""
    defaults = declared.ab_testing
    if defaults is None or not defaults.enabled or defaults.check_interval_hours is None:
        return DEFAULT_SECONDS
    note(
        f"note: a look every {defaults.check_interval_hours:g} hours, as the ab_testing block in {path} has it; "
        "--interval 30s acts on failed guardrails sooner, and looking is free"
    )
    return 3600.0 * defaults.check_interval_hours


async def _watched(
    shown: _Shown,
    url: str | None,
    names: list[str] | None,
    seconds: float,
    alerts: AlertSettings,
    *,
    once: bool,
    apply: bool,
) -> ExitCode:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    with contextlib.suppress(NotImplementedError):  # Windows ends a process without asking
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    code = ExitCode.OK
    try:
        async with promptab.open(url, timeout=OPEN_SECONDS, may_be_away=not once) as lab:
            lab.alerts.declare(alerts)
            are_known = await _are_known(lab, names or [])
            updates = lab.watch(names, interval=seconds, apply=apply, once=once)
            async with aclosing(updates) as looks:
                async for update in looks:
                    if not are_known and update.state != "away":
                        are_known = await _are_known(lab, names or [])
                    shown.tell(update)
                    if once and update.error is not None:
                        code = ExitCode.STORE if update.state == "away" else ExitCode.UNEXPECTED
    except asyncio.CancelledError:
        if once:
            # for cron, what was cut short is no look
            note("interrupted")
            return ExitCode.INTERRUPTED
        note("stopped; another watcher takes over")
    return code


async def _are_known(lab: Lab, names: list[str]) -> bool:
    """Return whether all these names are known; False where the store is away and cannot be asked.

    Raises `NotFoundError` for those that neither an experiment nor a prompt has, with what is alike.
    """
    try:
        experiments = await lab.experiments.list_experiments() if names else []
        versions = await lab.versions.list_versions() if names else []
    except StoreError:
        return False
    known = {experiment.name for experiment in experiments}
    known |= {called for each in versions for called in (each.name, f"{each.prompt_type}/{each.name}")}
    ids = {experiment.experiment_id for experiment in experiments}
    unknown = [name for name in dict.fromkeys(names) if name not in known | ids]
    if unknown:
        alike = dict.fromkeys(
            near for name in unknown for near in difflib.get_close_matches(name, sorted(known))
        )
        remedy = (
            f"did you mean {' or '.join(alike)}?" if alike else "list them with `promptab experiment list`"
        )
        raise NotFoundError("experiment or prompt", ", ".join(unknown), remedy)
    return True


class _Shown:
    """Prints updates: all of them as JSON, or those that say something new as lines."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said: dict[tuple[str, str | None], str] = {}
        self._console = console()

    def tell(self, update: WatchUpdate) -> None:
        if self._as_json:
            document = update.model_dump_json(exclude=_UNSHOWN)  # type: ignore[arg-type]
            # bytes: JSON is UTF-8, whatever the terminal's encoding is
            typer.echo(document.encode())
            return
        told, about = said(update), _about(update)
        if self._said.get(about) != told:
            self._said[about] = told
            self._console.print(visible(f"{moment(update.at)} {told}"), soft_wrap=True)


def _about(update: WatchUpdate) -> tuple[str, str | None]:
    """Return what an update is about: two experiments may have one name, and a bandit has updates of two kinds."""
    stored = update.decision
    return update.subject, None if stored is None else stored.decision.experiment_id


def said(update: WatchUpdate) -> str:
    """Return what a person reads of an update, without its time."""
    if not update.subject:
        return f"watch: {update.state.replace('_', ' ')}: {update.sentence}"
    if update.decision is None:
        return f"{update.subject}: {update.sentence}"
    stored = update.decision
    return f"{update.subject}: {what(stored.decision)} ({outcome(stored)}): {update.sentence}"
