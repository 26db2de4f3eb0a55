"""What people see of the demo, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from promptab.analysis.result import AnalysisResult
from promptab.choice import Choice
from promptab.cli.analysis_view import AnalysisView
from promptab.cli.output import facts, table, visible
from promptab.cli.wording import counted, moment, percent
from promptab.demo import Fall, Model, Served
from promptab.demo.prompts import BETTER, WORSE, AddedPrompts
from promptab.models import Deployment, PromptVersion

_INDENT = 3


class DemoView:
    """Prints the story on a console, which may be a quiet one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = 0

    def opening(self, model: Model, *, simulated: bool, seed: int, url: str, kept: bool) -> None:
        if simulated:
            self._say(
                "The model and its customers are SIMULATED: no key, no network, and no claim about any real "
                f"model. The numbers come from chance with seed {seed}; everything else is real.",
                style="bold yellow",
            )
        else:
            self._say(f"The model is real: {model.name}. The customers and their questions are made up.")
        self._console.print()
        fate = "kept" if kept else "temporary: gone at the end, unless you give --keep"
        pairs = [("model", model.name), ("store", f"{url} ({fate})"), ("success", model.success_rule)]
        self._put(facts(pairs))

    def prompts(self, added: AddedPrompts, folder: str | None) -> None:
        self._heading("Prompts become versions")
        if added.pushed:
            self._say(
                f"{counted(len(added.pushed), 'prompt')} pushed from {folder}/, each as its first version:"
            )
            self._say(", ".join(version.label for version in added.pushed), style="dim")
        else:
            self._say("There are no prompt files here, so the demo brings its own.")
        for note in added.notes:
            self._say(f"note: {visible(note)}", style="yellow")

    def release(self, first: PromptVersion, second: PromptVersion) -> None:
        self._heading("Two versions, one experiment")
        self._say(f"{first.label} is in production. {second.version} says one sentence more:")
        self._say(f"+ {BETTER}", style="green")
        self._say(
            "Half of the customers get each. A customer always gets the same one, found by a hash of the "
            "customer's id, without asking the database."
        )

    def served(self, served: Served, *, seconds: float) -> None:
        self._say(
            f"{counted(served.customers, 'customer')} asked {counted(served.calls, 'question')}, every outcome "
            f"committed: {seconds:.1f} s, {served.calls / seconds:,.0f} calls a second."
        )

    def analysis(self, comparison: AnalysisResult) -> None:
        self._heading("Which one is better?")
        self._say(f"What `promptab experiment analyze {comparison.experiment}` shows:", style="dim")
        self._console.print()
        self._put(AnalysisView(comparison))
        self._console.print()
        self._say(
            "Counted over customers and not over calls: ten questions of one customer are one customer.",
            style="dim",
        )

    def ended(self, comparison: AnalysisResult, move: Deployment | None) -> None:
        self._heading("Promotion")
        if move is None:
            self._say("No winner is named, so nothing is promoted, and the experiment is stopped.")
            self._say(comparison.reason)
            return
        self._say(_moved(move), style="bold green")
        self._say(f"because {move.reason}")

    def worse(self, third: PromptVersion) -> None:
        self._heading("A bad version slips through")
        self._say(f"{third.version} goes into production without an experiment. It looks harmless:")
        self._say(f"+ {WORSE}", style="green")

    def fallen(self, fall: Fall) -> None:
        if fall.is_shown:
            self._say(
                f"Success falls from {percent(fall.rate_before)} to {percent(fall.rate)}: "
                f"{abs(100 * fall.difference):.1f} points less ({_certainty(fall)}; before and "
                "after, so no experiment).",
                style="bold red",
            )
        else:
            self._say(
                f"Success is {percent(fall.rate)}, after {percent(fall.rate_before)}: so few calls do not show a "
                "fall. It is taken back by hand, to show how."
            )

    def rolled_back(self, move: Deployment, choice: Choice) -> None:
        self._heading("Rollback")
        self._say(_moved(move), style="bold green")
        self._say(f"because {move.reason}")
        number = "nothing" if choice.version is None else choice.version.version
        self._say(f"The next customer gets {number}: {choice.reason}.")
        self._say("The evidence is kept with the move. The same rollback once more would change nothing.")

    def history(self, moves: Sequence[Deployment]) -> None:
        self._heading("What was live when")
        rows = table("when (UTC)", "move", "from", "to", "why")
        for move in moves:
            rows.add_row(
                moment(move.at),
                move.action,
                move.previous_version or "",
                move.version or "",
                move.reason,
                style="bold yellow" if move.action == "rollback" else "",
            )
        self._put(rows)

    def closing(self, commands: Sequence[tuple[str, str]], *, simulated: bool, seconds: float) -> None:
        self._heading("What to try next")
        for command, gain in commands:
            # not wrapped: people copy it
            self._console.print(" " * _INDENT + command, style="bold", soft_wrap=True)
            self._say(f"  {gain}", style="dim")
        self._console.print()
        ending = " The model was simulated: none of these numbers is about a real one." if simulated else ""
        self._say(f"Done in {seconds:.1f} s.{ending}")

    def progress(self) -> Progress:
        """Return a bar that is gone when it is full; a sentence takes its place."""
        return Progress(
            TextColumn(" " * _INDENT + "{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("customers"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=self._console.quiet,
        )

    def _heading(self, title: str) -> None:
        self._step += 1
        self._console.print()
        self._console.rule(f"{self._step}. {title}", align="left", style="dim")

    def _say(self, text: str, *, style: str = "") -> None:
        self._put(Text(text, style=style))

    def _put(self, renderable: RenderableType) -> None:
        self._console.print(Padding(renderable, (0, 0, 0, _INDENT), expand=False))


def _moved(move: Deployment) -> str:
    return f"production: {move.previous_version} -> {move.version}"


def _certainty(fall: Fall) -> str:
    if fall.interval is None:
        return f"no customer varies, by permutation p = {fall.p_value:.2g}"
    return f"95 % interval {-100 * fall.interval.high:.1f} to {-100 * fall.interval.low:.1f}"
