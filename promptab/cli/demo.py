"""`promptab demo`: the whole loop on a store of its own."""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Annotated, NamedTuple

import typer

from promptab.analysis.result import AnalysisResult
from promptab.cli.demo_view import DemoView
from promptab.cli.options import JsonOption
from promptab.cli.output import console, emit, run
from promptab.demo import Demo, Model, Served, SimulatedModel, open_provider
from promptab.demo.prompts import add_prompts
from promptab.lab import Lab
from promptab.models import Deployment
from promptab.records import Record

_CUSTOMERS = 2_000
_PAID_CUSTOMERS = 24
_FEWEST_CUSTOMERS = 20


class DemoResult(Record):
    """What the demo did, for programs."""

    simulated: bool
    model: str
    seed: int
    url: str
    kept: bool
    """False where the store is gone by now."""
    prompts: tuple[str, ...]
    """The versions that were pushed from files."""
    notes: tuple[str, ...]
    customers: int
    calls: int
    comparison: AnalysisResult
    promoted: str | None
    """The version that won; None where no winner was named."""
    bad_version: str
    bad_success_rate: float
    success_rate_before: float
    fall_is_shown: bool
    rolled_back_to: str | None
    deployments: tuple[Deployment, ...]
    seconds: float


class _Place(NamedTuple):
    """Where the demo works."""

    url: str
    lock_path: Path
    kept: bool


class _Wishes(NamedTuple):
    """What was asked for on the command line."""

    folder: Path | None
    customers: int
    seed: int
    provider: str | None
    model: str | None
    yes: bool

    @property
    def customers_of_worse(self) -> int:
        """How many meet the bad version before it is taken back."""
        return max(_FEWEST_CUSTOMERS // 2, self.customers // 10)

    @property
    def most_turns(self) -> int:
        """How often a customer asks at most: once where every call costs money."""
        return 6 if self.provider is None else 1


def demo(
    *,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Prompt files to push, if the folder is there.")
    ] = Path("prompts"),
    users: Annotated[
        int | None,
        typer.Option(
            "--users",
            min=_FEWEST_CUSTOMERS,
            max=100_000,
            help="Customers in the experiment.",
            show_default=f"{_CUSTOMERS}, with --provider {_PAID_CUSTOMERS}",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="NUMBER", help="Another number, other customers and other luck.")
    ] = 7,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="A new store to use and to leave there.", show_default="temporary"
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the temporary store, to look around in it.")
    ] = False,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider", metavar="NAME", help="Ask a real model: openai or anthropic.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Which model of the provider; a small one by default.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before calls that cost money.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch the whole loop, with a simulated model: no key, no network, a few seconds.

    It pushes the prompts of ./prompts into a temporary store, splits simulated customers between two versions,
    compares them, promotes the winner, lets a bad version slip through and takes it back.

    $ promptab demo
    $ promptab demo --seed 3 --users 500 --json
    """
    started = time.perf_counter()
    screen = console()
    screen.quiet = as_json
    view = DemoView(screen)
    wishes = _Wishes(
        folder=folder if folder.is_dir() else None,
        customers=users or (_CUSTOMERS if provider is None else _PAID_CUSTOMERS),
        seed=seed,
        provider=provider,
        model=model,
        yes=yes,
    )
    with _place(url, keep=keep) as place:

        async def work(lab: Lab) -> DemoResult:
            async with _opened_model(wishes) as answering:
                return await _told(lab, answering, view, wishes, place, started=started)

        result = run(work, url=place.url)
    emit(
        result,
        as_json=as_json,
        human=lambda _: view.closing(
            _next_commands(result), simulated=result.simulated, seconds=result.seconds
        ),
    )


async def _told(
    lab: Lab, model: Model, view: DemoView, wishes: _Wishes, place: _Place, *, started: float
) -> DemoResult:
    """Take every step, and show each as it is taken."""
    simulated = wishes.provider is None
    view.opening(model, simulated=simulated, seed=wishes.seed, url=place.url, kept=place.kept)
    added = await add_prompts(lab, wishes.folder, lock_path=place.lock_path)
    view.prompts(added, str(wishes.folder))
    story = Demo(lab, model, added.first, seed=wishes.seed)
    second, experiment = await story.release()
    view.release(added.first, second)
    served = await _served(story, view, wishes.customers, wishes.most_turns)
    comparison = await lab.analyze(experiment.experiment_id)
    view.analysis(comparison)
    promotion = await story.end_experiment(comparison)
    view.ended(comparison, promotion)
    third = await story.release_worse()
    view.worse(third)
    served_worse = await _served(story, view, wishes.customers_of_worse, wishes.most_turns)
    fall = story.fall(third)
    view.fallen(fall)
    rollback = await story.roll_back(fall)
    view.rolled_back(rollback, await story.next_choice())
    moves = await story.history()
    view.history(moves)
    return DemoResult(
        simulated=simulated,
        model=model.name,
        seed=wishes.seed,
        url=place.url,
        kept=place.kept,
        prompts=tuple(version.label for version in added.pushed),
        notes=tuple(added.notes),
        customers=served.customers + served_worse.customers,
        calls=served.calls + served_worse.calls,
        comparison=comparison,
        promoted=None if promotion is None else promotion.version,
        bad_version=fall.version,
        bad_success_rate=fall.rate,
        success_rate_before=fall.rate_before,
        fall_is_shown=fall.is_shown,
        rolled_back_to=rollback.version,
        deployments=tuple(moves),
        seconds=time.perf_counter() - started,
    )


async def _served(story: Demo, view: DemoView, customers: int, most_turns: int) -> Served:
    began = time.perf_counter()
    with view.progress() as progress:
        task = progress.add_task("asking and recording", total=customers)
        served = await story.serve(
            customers, most_turns=most_turns, on_customer=lambda: progress.advance(task)
        )
    view.served(served, seconds=time.perf_counter() - began)
    return served


@asynccontextmanager
async def _opened_model(wishes: _Wishes) -> AsyncIterator[Model]:
    """Open the model that was asked for, after a yes where its calls cost money."""
    if wishes.provider is None:
        yield SimulatedModel(wishes.seed)
        return
    async with open_provider(wishes.provider, wishes.model) as model:
        calls = wishes.customers + wishes.customers_of_worse
        if not wishes.yes:
            typer.confirm(
                f"This makes {calls} calls to {model.name}, which cost money. Go on?", abort=True, err=True
            )
        yield model


@contextmanager
def _place(url: str | None, *, keep: bool) -> Iterator[_Place]:
    with TemporaryDirectory(prefix="promptab-demo-") as folder:
        lock_path = Path(folder) / "promptab.lock"
        if url is not None:
            yield _Place(url, lock_path, kept=True)
        elif keep:
            yield _Place(f"sqlite:///{mkdtemp(prefix='promptab-demo-')}/demo.db", lock_path, kept=True)
        else:
            yield _Place(f"sqlite:///{folder}/demo.db", lock_path, kept=False)


def _next_commands(result: DemoResult) -> list[tuple[str, str]]:
    """Return commands that work now, in this order, each with what it is good for."""
    if not result.kept:
        return [
            ("promptab demo --keep", "the same, and the store stays, to look around in"),
            ("promptab init", "a prompts folder and a store for your own prompts"),
            ("promptab --help", "everything else"),
        ]
    prompt = f"{result.deployments[0].prompt_type}/{result.deployments[0].name}"
    return [
        (f"export PROMPTAB_URL={shlex.quote(result.url)}", "the store of this demo, for the commands below"),
        (f"promptab log {prompt}", "its versions, oldest first"),
        (f"promptab diff {prompt} {result.comparison.control} {result.bad_version}", "what was changed"),
        (f"promptab experiment analyze {result.comparison.experiment}", "the analysis again"),
        (f"promptab deployments {prompt}", "what was live when, and why"),
    ]
