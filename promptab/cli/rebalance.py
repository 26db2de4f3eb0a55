"""`promptab experiment rebalance`: one batch step of a bandit, for cron; and the options that declare a bandit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.options import ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.wording import percent
from promptab.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.bandit import Rebalancing

BanditOption = Annotated[
    str | None,
    typer.Option(
        "--bandit",
        metavar="ALGORITHM",
        help="Let weights follow the primary metric: thompson, epsilon_greedy or ucb.",
        show_default=False,
    ),
]
FloorOption = Annotated[
    float | None,
    typer.Option(
        "--floor", metavar="SHARE", help="Of a bandit: the least share of a variant.", show_default="0.05"
    ),
]
UniformOption = Annotated[
    float | None,
    typer.Option(
        "--uniform",
        metavar="SHARE",
        help="Of a bandit: the share of units that is dealt alike throughout.",
        show_default="0",
    ),
]


def bandit_of(algorithm: str | None, *, floor: float | None, uniform: float | None) -> dict[str, Any] | None:
    """Return the fields of a bandit; None where none is asked for. Refuses fields of one without it."""
    given = {name: value for name, value in (("floor", floor), ("uniform", uniform)) if value is not None}
    if algorithm is not None:
        return {"algorithm": algorithm, **given}
    if given:
        name, value = next(iter(given.items()))
        raise InvalidInputError(f"--{name}", value, "given with --bandit", "it says how a bandit deals")
    return None


def rebalance(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Move a bandit's weights, where a batch is complete; else say what it waits for.

    Safe to run as often as you like, and twice at once. Units keep the variant they have.

    $ promptab experiment rebalance greeting
    """
    found = run(lambda lab: lab.rebalance(experiment), url=url)
    emit(found, as_json=as_json, human=lambda to: _print(to, found))


def _print(to: Console, found: Rebalancing) -> None:
    to.print(f"{'weights changed' if found.changed else 'weights as they are'}: {found.reason}")
    rows = table("variant", "share", "best", "units counted", right=["share", "best", "units counted"])
    for key, share in found.weights.items():
        best = found.best.get(key)
        rows.add_row(
            key, percent(share), "-" if best is None else percent(best), f"{found.units.get(key, 0):,}"
        )
    to.print(rows)
