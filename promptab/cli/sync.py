"""`promptab sync`: prompt files and the store, kept in step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.arguments import actor_or_user
from promptab.cli.exit_codes import ExitCode, kind_of
from promptab.cli.options import ActorOption, JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.cli.references import parse_prompt
from promptab.cli.sync_printing import print_plan, print_report
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.library import FileSystemPromptLibrary
from promptab.models import PromptType
from promptab.sync import SyncAction, SyncOutcome, SyncPlan, SyncReport, check_files, plan_sync
from promptab.sync import pull as pull_plan
from promptab.sync import push as push_plan

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    help="Keep prompt files and the store in step. Alone it shows what would change, as `sync status` does.",
)

DirOption = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="The folder of prompt files.", show_default=True)
]
AdoptOption = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="The lock was made with another store, and this one is to take its place where the contents agree.",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan and change nothing.", show_default=False)
]
_PROMPTS = Path("prompts")

_UNDECIDED_CODES = {
    SyncAction.CONFLICT: ExitCode.CONFLICT,
    SyncAction.VERSION_GONE: ExitCode.CONFLICT,
    SyncAction.PROBLEM: ExitCode.INVALID_INPUT,
    SyncAction.FOREIGN: ExitCode.WRONG_STATE,
}
"""What a push or a pull had to leave as it is -> its exit code; where there are several, the lowest counts."""


@app.callback()
def sync(
    context: typer.Context,
    *,
    directory: DirOption = _PROMPTS,
    adopt: AdoptOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    if context.invoked_subcommand is None:
        status(directory=directory, adopt=adopt, url=url, as_json=as_json)
    elif directory != _PROMPTS or adopt or as_json:
        raise typer.BadParameter(
            f"write the options behind the command: promptab sync {context.invoked_subcommand} --dir …"
        )


@app.command()
def status(
    *,
    directory: DirOption = _PROMPTS,
    adopt: AdoptOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a push and a pull would do, and what neither of them can decide. Changes nothing.

    $ promptab sync status
    """
    library = FileSystemPromptLibrary(directory)
    plan = run(lambda lab: plan_sync(lab, library, adopt=adopt), url=url)
    emit(_plan_document(plan), as_json=as_json, human=lambda to: print_plan(to, plan))


@app.command()
def push(
    *,
    directory: DirOption = _PROMPTS,
    ours: Annotated[
        list[str] | None,
        typer.Option(
            "--ours",
            metavar="TYPE/NAME",
            help="Settle a conflict: the file becomes the next version.",
            show_default=False,
        ),
    ] = None,
    adopt: AdoptOption = False,
    dry_run: DryRunOption = False,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new version of every file that changed, and write the lock.

    An unchanged file never makes a version. What changed on both sides is left as it is, and named: exit code 4.

    $ promptab sync push --dry-run
    $ promptab sync push
    """
    library, chosen = FileSystemPromptLibrary(directory), [_key("--ours", text) for text in ours or ()]

    async def work(lab: Lab) -> SyncReport:
        plan = await plan_sync(lab, library, adopt=adopt, ours=chosen)
        if dry_run:
            return SyncReport(plan=plan, outcomes=())
        return await push_plan(lab, library, plan, actor=actor_or_user(actor))

    _finish(run(work, url=url), as_json=as_json)


@app.command()
def pull(
    *,
    directory: DirOption = _PROMPTS,
    theirs: Annotated[
        list[str] | None,
        typer.Option(
            "--theirs",
            metavar="TYPE/NAME",
            help="Settle a conflict: the store's version replaces the file.",
            show_default=False,
        ),
    ] = None,
    adopt: AdoptOption = False,
    dry_run: DryRunOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what is new in the store into the files, and write the lock.

    What changed on both sides is left as it is, and named: exit code 4.

    $ promptab sync pull
    """
    library, chosen = FileSystemPromptLibrary(directory), [_key("--theirs", text) for text in theirs or ()]

    async def work(lab: Lab) -> SyncReport:
        plan = await plan_sync(lab, library, adopt=adopt, theirs=chosen)
        if dry_run:
            return SyncReport(plan=plan, outcomes=())
        return await pull_plan(lab, library, plan)

    _finish(run(work, url=url), as_json=as_json)


@app.command()
def check(
    *,
    directory: DirOption = _PROMPTS,
    files_only: Annotated[
        bool,
        typer.Option(
            "--files-only",
            help="Ask no store: do all files parse, and are they what the lock remembers?",
            show_default=False,
        ),
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """For CI: end with exit code 8 unless files, lock and store are in step.

    $ promptab sync check
    $ promptab sync check --files-only
    """
    library = FileSystemPromptLibrary(directory)
    plan = check_files(library) if files_only else run(lambda lab: plan_sync(lab, library), url=url)
    emit(_plan_document(plan), as_json=as_json, human=lambda to: print_plan(to, plan))
    if not plan.in_step:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _finish(report: SyncReport, *, as_json: bool) -> None:
    def human(to: Console) -> None:
        print_plan(to, report.plan)
        print_report(to, report)

    document = _plan_document(report.plan) | {"outcomes": [_outcome_document(o) for o in report.outcomes]}
    emit(document, as_json=as_json, human=human)
    if (code := _exit_code(report)) != ExitCode.OK:
        raise typer.Exit(code)


def _exit_code(report: SyncReport) -> ExitCode:
    codes = [_UNDECIDED_CODES[item.action] for item in report.plan.items if item.action in _UNDECIDED_CODES]
    codes.extend(kind_of(outcome.error).code for outcome in report.failed if outcome.error is not None)
    if report.plan.problems:
        codes.append(ExitCode.INVALID_INPUT)
    return min(codes, default=ExitCode.OK)


def _plan_document(plan: SyncPlan) -> dict[str, Any]:
    return {"in_step": plan.in_step, **plan.model_dump(mode="json")}


def _outcome_document(outcome: SyncOutcome) -> dict[str, Any]:
    error = None if outcome.error is None else kind_of(outcome.error).name
    return outcome.model_dump(mode="json") | {"error": error}


def _key(option: str, text: str) -> tuple[PromptType, str]:
    written = parse_prompt(text)
    if written.prompt_type is None:
        raise InvalidInputError(option, text, "TYPE/NAME, such as system/greeting")
    return written.prompt_type, written.name
