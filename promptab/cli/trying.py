"""`promptab test`: a version on the cases of its prompt, with a real model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.calls.opening import KEY_VARIABLES, open_client, provider_of
from promptab.cli.exit_codes import ExitCode
from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import console, emit, run, table, visible
from promptab.cli.references import find_version, parse_reference
from promptab.cli.wording import counted
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.models import PromptVersion
from promptab.trying import CaseReport, TriedCase

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_WORDS = {"passed": "passed", "failed": "failed", "error": "no answer", "not_run": "not run"}
_STYLES = {"failed": "red", "error": "yellow", "not_run": "yellow"}


def try_version(
    reference: ReferenceArgument,
    *,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="VERSION",
            help="The same as @VERSION behind the name.",
            show_default="the latest",
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            metavar="NAME",
            help="openai or anthropic.",
            show_default="by the version's configuration",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Ask this model.", show_default="the versions' own"),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="ENVIRONMENT",
            help="Compare with what is live there, and try that too where it was not; or none.",
        ),
    ] = "production",
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="DOLLARS",
            help="Run no case that could take the whole above this.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="NUMBER",
            help="The greatest length of an answer.",
            show_default="the versions' own",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="NUMBER", help="Calls at the same time.")
    ] = 4,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="For one answer, with its retries.")
    ] = 60.0,
    allow_python: Annotated[
        bool,
        typer.Option(
            "--allow-python",
            help="Let cases call functions that they name; modules are looked for in this folder too.",
        ),
    ] = False,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a version on the cases of its prompt: what its file has under tests.

    The calls are real and cost money; the key is taken from OPENAI_API_KEY or ANTHROPIC_API_KEY. Results are kept for
    `promptab promote --gate`. Ends with exit code 8 unless every case has passed.

    $ promptab test system/greeting@1.1.0 --provider openai --model gpt-4.1-mini
    $ promptab test system/greeting --max-cost 0.50 --max-tokens 500 --json
    """
    written = parse_reference(reference, prompt_type)
    if version is not None:
        if written.version is not None:
            raise InvalidInputError(
                "--version", version, f"needed beside {reference}", "write one of the two"
            )
        written = written._replace(version=version)
    if allow_python and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))

    async def work(lab: Lab) -> CaseReport:
        found = await find_version(lab, written)
        async with open_client(provider or _provider_of(found, model)) as client:
            with _progress(found.label, quiet=as_json) as progress:
                task = progress.add_task(found.label, total=None)
                return await lab.test(
                    found.name,
                    found.prompt_type,
                    found.version,
                    against=None if against == "none" else against,
                    client=client,
                    model=model,
                    max_tokens=max_tokens,
                    max_cost=max_cost,
                    concurrency=concurrency,
                    timeout=timeout,
                    allow_python=allow_python,
                    on_plan=lambda total: progress.update(task, total=total),
                    on_result=lambda _: progress.advance(task),
                )

    report = run(work, url=url)
    emit(_document(report), as_json=as_json, human=lambda to: _print(to, report))
    if not report.all_passed:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _provider_of(version: PromptVersion, model: str | None) -> str:
    """Return whose client to ask with: as the configuration says, else as the name of the model tells."""
    named = version.config.get("provider") if model is None else None
    asked = model or version.config.get("model")
    if isinstance(named, str):
        return named
    found = provider_of(asked) if isinstance(asked, str) else None
    if found is None:
        what = (
            f"{version.label} names no model" if asked is None else f"of the model {asked!r} nobody knows it"
        )
        raise InvalidInputError(
            "--provider",
            None,
            f"given: {', '.join(KEY_VARIABLES)}",
            f"{what}; say also --model where it names none",
        )
    return found


@contextmanager
def _progress(label: str, *, quiet: bool) -> Iterator[Progress]:
    """Show a bar on standard error that is gone when it is full; none where nobody would see it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    screen = console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("cases"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=quiet or not screen.is_terminal,
    ) as progress:
        yield progress


def _document(report: CaseReport) -> dict[str, Any]:
    return {
        "all_passed": report.all_passed,
        "steps_back": report.steps_back,
        "not_run": [case.name for case in report.cases if case.result.status == "not_run"],
        **report.model_dump(mode="json"),
    }


def _print(to: Console, report: CaseReport) -> None:
    headers = ["case", report.version, *([] if report.live is None else [f"{report.live} (live)"]), "why"]
    listing = table(*headers)
    for case in report.cases:
        cells = [visible(case.name), _WORDS[case.result.status]]
        if report.live is not None:
            cells.append("-" if case.live is None else _WORDS[case.live.status])
        listing.add_row(*cells, visible(_why(case)), style=_STYLES.get(case.result.status))
    to.print(listing)
    for line in _closing(report):
        to.print(visible(line), soft_wrap=True)


def _why(case: TriedCase) -> str:
    return "; ".join(case.result.reasons)


def _closing(report: CaseReport) -> Iterator[str]:
    yield f"{report.count('passed')} of {counted(len(report.cases), 'case')} passed on {report.prompt}@{report.version}"
    if report.steps_back:
        yield f"passed on {report.live}, and fails now: {', '.join(report.steps_back)}"
    if not_run := report.count("not_run"):
        yield f"{counted(not_run, 'case')} not run: the cost could have exceeded the limit"
    unknown = report.calls_of_unknown_cost
    more = f", and {counted(unknown, 'call')} of unknown cost" if unknown else ""
    yield f"{counted(report.calls, 'call')}, ${report.cost:.6f}{more}"
