"""`promptab cost`: what calls of models cost, added up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast, get_args

import typer

from promptab.cli.arguments import read_time
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.wording import counted
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.stores.base import CostKey

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.stores.queries.costs import CostRow


def cost(
    *,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="version, prompt, model or variant.")
    ] = "version",
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="2025-06-30T14:00, or 7d for the last 7 days.", show_default=False
        ),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only what was run in the shadow, and served to nobody.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add up what the recorded calls cost in US dollars, the costliest first.

    A call whose cost is not known is counted as unknown and not as free. Calls of a fallback belong to no version. What
    was run in the shadow stands apart, and in --json only with --shadow.

    $ promptab cost --by version --since 7d
    """
    if by not in get_args(CostKey):
        raise InvalidInputError("--by", by, f"one of {', '.join(get_args(CostKey))}")
    key = cast("CostKey", by)
    start = None if since is None else read_time("--since", since, now=datetime.now(UTC))

    async def work(lab: Lab) -> _Costs:
        served = [] if shadow else await lab.costs(key, since=start)
        beside = [] if as_json and not shadow else await lab.costs(key, since=start, in_shadow=True)
        return _Costs(served, beside)

    found = run(work, url=url)
    document = [{by: label(key, row), **_numbers(row)} for row in (found.shadow if shadow else found.served)]
    emit(document, as_json=as_json, human=lambda to: _print(to, key, found, shadow_alone=shadow))


class _Costs(NamedTuple):
    served: Sequence[CostRow]
    shadow: Sequence[CostRow]


def label(by: CostKey, row: CostRow) -> str | None:
    """Return what the group is called; None for calls that belong to none."""
    parts = [part for part in row.key if part is not None]
    if len(parts) < len(row.key):
        return None
    match by:
        case "version":
            return "{}/{}@{}".format(*parts)
        case "prompt":
            return "/".join(parts)
        case "variant":
            return ": ".join(parts)
        case "model":
            return parts[0]


def _numbers(row: CostRow) -> dict[str, float]:
    return {name: value for name, value in row._asdict().items() if name != "key"}


def _print(to: Console, by: CostKey, found: _Costs, *, shadow_alone: bool) -> None:
    if found.served:
        _print_rows(to, by, found.served)
    elif not shadow_alone:
        to.print("no calls are recorded")
    if found.shadow:
        to.print("\nin the shadow, served to nobody" if not shadow_alone else "in the shadow", style="bold")
        _print_rows(to, by, found.shadow)
    elif shadow_alone:
        to.print("nothing has run in the shadow")


def _print_rows(to: Console, by: CostKey, rows: Sequence[CostRow]) -> None:
    total, unknown = sum(row.cost for row in rows), sum(row.unknown for row in rows)
    # names are long, and their lines short: nothing unknown takes no column
    numbers = ["calls", "cost", *(["unknown"] if unknown else []), "input", "cached", "output"]
    shown = table(by, *numbers, right=numbers)
    for row in rows:
        cells = {
            "calls": f"{row.calls:,}",
            "cost": _dollars(row.cost) if row.unknown < row.calls else "-",
            "unknown": f"{row.unknown:,}" if row.unknown else "",
            "input": f"{row.input_tokens:,}",
            "cached": f"{row.cached_input_tokens:,}",
            "output": f"{row.output_tokens:,}",
        }
        shown.add_row(label(by, row) or "-", *(cells[name] for name in numbers))
    to.print(shown)
    more = f"; not known of {counted(unknown, 'call')}" if unknown else ""
    to.print(f"together {_dollars(total)}{more}")


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}"
