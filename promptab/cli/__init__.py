"""The command line. `promptab --help` imports none of the commands, and so answers at once."""

from __future__ import annotations

import io
import sys
from typing import Annotated, ClassVar

import typer

import promptab
from promptab.cli.lazy import Entry, LazyGroup

_START, _VERSIONS, _LIVE = "Start here", "Prompts and versions", "What is live"
_EXPERIMENTS, _OUTCOMES, _STORES = "Experiments", "Outcomes", "Stores"


class Promptab(LazyGroup):
    entries: ClassVar = {
        "init": Entry("promptab.cli.init:init", "Make a prompts folder and a store.", _START),
        "demo": Entry("promptab.cli.demo:demo", "Watch the whole loop with a simulated model.", _START),
        "sync": Entry("promptab.cli.sync:app", "Keep prompt files and the store in step.", _VERSIONS),
        "list": Entry(
            "promptab.cli.listing:list_versions", "List prompts, or the versions of one.", _VERSIONS
        ),
        "show": Entry("promptab.cli.show:show", "Show one version whole.", _VERSIONS),
        "diff": Entry("promptab.cli.diff:diff", "Show what changed between two versions.", _VERSIONS),
        "log": Entry("promptab.cli.listing:log", "Show the history of a prompt, oldest first.", _VERSIONS),
        "new": Entry("promptab.cli.new:new", "Create a version.", _VERSIONS),
        "tag": Entry("promptab.cli.tag:tag", "Put a tag on a version, or take it off.", _VERSIONS),
        "render": Entry("promptab.cli.render:render", "Print the text that a prompt gives.", _VERSIONS),
        "test": Entry(
            "promptab.cli.trying:try_version", "Try a version on the cases of its prompt.", _VERSIONS
        ),
        "promote": Entry("promptab.cli.deploying:promote", "Make a version live.", _LIVE),
        "rollback": Entry("promptab.cli.deploying:rollback", "Go back to what was live before.", _LIVE),
        "deployments": Entry("promptab.cli.deploying:deployments", "Show what was live when.", _LIVE),
        "watch": Entry("promptab.cli.watch:watch", "Look again and again, and act by the policies.", _LIVE),
        "experiment": Entry("promptab.cli.experiment:app", "Create, run and end experiments.", _EXPERIMENTS),
        "decide": Entry(
            "promptab.cli.deciding:decide", "Decide about an experiment by its policy.", _EXPERIMENTS
        ),
        "decisions": Entry(
            "promptab.cli.deciding:decisions", "Show what was decided, and why.", _EXPERIMENTS
        ),
        "approve": Entry(
            "promptab.cli.deciding:approve", "Apply the decision that waits for a person.", _EXPERIMENTS
        ),
        "override": Entry(
            "promptab.cli.deciding:override", "Act on an experiment, whatever its policy says.", _EXPERIMENTS
        ),
        "assign": Entry(
            "promptab.cli.assign:assign", "Say which variant a user gets, and why.", _EXPERIMENTS
        ),
        "compare": Entry(
            "promptab.cli.compare:compare", "Compare the variants of an experiment.", _EXPERIMENTS
        ),
        "alerts": Entry(
            "promptab.cli.alerts:app",
            "List alerts and what became of them, deliver and prune them.",
            _EXPERIMENTS,
        ),
        "record": Entry(
            "promptab.cli.record:record", "Record what came of one use, or a later outcome.", _OUTCOMES
        ),
        "metrics": Entry(
            "promptab.cli.metrics:metrics", "Add up the outcomes, version by version.", _OUTCOMES
        ),
        "events": Entry(
            "promptab.cli.events:app", "Write single events to files, or drop old ones.", _OUTCOMES
        ),
        "cost": Entry("promptab.cli.cost:cost", "Add up what calls cost.", _OUTCOMES),
        "import": Entry(
            "promptab.cli.importing:import_", "Make versions of other tools' prompt files.", _STORES
        ),
        "export": Entry("promptab.cli.exporting:export", "Write a version as another tool's file.", _STORES),
        "copy": Entry(
            "promptab.cli.copy:copy", "Copy versions with their history to another store.", _STORES
        ),
        "snapshot": Entry(
            "promptab.cli.snapshot:app", "Keep a file to start from while the store is away.", _STORES
        ),
        "doctor": Entry("promptab.cli.doctor:doctor", "Check that a store is sound.", _STORES),
    }


app = typer.Typer(name="promptab", cls=Promptab, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda given: _show_version(given=given),
            is_eager=True,
            help="Print the version of promptab.",
        ),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            envvar="PROMPTAB_TRACEBACK",
            help="Show where an unexpected error comes from.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Keep prompts as versions, split users between them, compare honestly, promote and roll back.

    --url (or PROMPTAB_URL) names the store, and --json is for programs. Exit codes: 0 fine, 1 unexpected, 2 usage,
    3 not found, 4 conflict, 5 invalid input, 6 wrong state, 7 store, 8 a check failed, 130 interrupted.
    """


def _show_version(*, given: bool) -> None:
    if given:
        typer.echo(f"promptab {promptab.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line: the entry point of the installed `promptab`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # as standard error does: what a terminal cannot show ends no command, least of all one that has acted
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="promptab")
