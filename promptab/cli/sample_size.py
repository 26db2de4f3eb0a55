"""`promptab experiment sample-size`: how many units an experiment needs, or what it finds with those that it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from promptab.checks import check_number
from promptab.cli.experiment_policy import planning_defaults
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.cli.sample_size_view import print_plan
from promptab.errors import InvalidInputError
from promptab.plan import TUNING_UNITS
from promptab.stats.metric import Direction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptab.analysis.planned import MetricHistory
    from promptab.analysis.sizing import Outcome, SizeQuestion

_KNOWN, _ASKED, _DEALT = "What is known of the control", "What is to be found", "How the units come"


def sample_size(
    *,
    baseline: Annotated[
        float | None,
        typer.Option(
            "--baseline", metavar="RATE", help="A rate, 0 to 1.", show_default=False, rich_help_panel=_KNOWN
        ),
    ] = None,
    mean: Annotated[
        float | None,
        typer.Option("--mean", help="A mean, with --sd.", show_default=False, rich_help_panel=_KNOWN),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option(
            "--sd",
            help="Standard deviation of a unit's value; of an event's, with --events-per-unit.",
            show_default=False,
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="EXPERIMENT|TYPE/NAME",
            help="All of it from what was recorded for an experiment or a prompt.",
            show_default=False,
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="With --from: which.",
            show_default="the primary",
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    events_per_unit: Annotated[
        float | None,
        typer.Option(
            "--events-per-unit",
            metavar="M",
            help="Events of a unit on average.",
            show_default=False,
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    event_cv: Annotated[
        float | None,
        typer.Option(
            "--event-cv",
            metavar="CV",
            help="Their coefficient of variation.",
            show_default="0",
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            "--correlation",
            metavar="RHO",
            help="Of two events of one unit, 0 to 1.",
            show_default="0",
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    history_correlation: Annotated[
        float | None,
        typer.Option(
            "--history-correlation",
            metavar="R",
            help="CUPED: of a unit's outcomes with its earlier ones.",
            show_default=False,
            rich_help_panel=_KNOWN,
        ),
    ] = None,
    mde: Annotated[
        float | None,
        typer.Option(
            "--mde",
            metavar="EFFECT",
            help="The smallest improvement worth finding.",
            show_default=False,
            rich_help_panel=_ASKED,
        ),
    ] = None,
    relative: Annotated[
        bool,
        typer.Option(
            "--relative",
            help="--mde and --margin are shares of the control's value.",
            rich_help_panel=_ASKED,
        ),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="M",
            help="Show instead that it is not worse by M (non-inferiority).",
            show_default=False,
            rich_help_panel=_ASKED,
        ),
    ] = None,
    direction: Annotated[
        Direction | None,
        typer.Option(
            "--direction",
            help="The change that is an improvement.",
            show_default="increase, or the metric's",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            "--power",
            help="The chance to find it.",
            show_default="0.8, or that of the ab_testing block",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            help="The chance to find what is not there, shared among the variants.",
            show_default="0.05, or that of the ab_testing block",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(
            "--units",
            metavar="N",
            help="Given the control's units: the power with --mde, else the smallest effect.",
            show_default=False,
            rich_help_panel=_ASKED,
        ),
    ] = None,
    variants: Annotated[
        int,
        typer.Option(
            "--variants", metavar="N", help="Variants, the control included.", rich_help_panel=_DEALT
        ),
    ] = 2,
    ratio: Annotated[
        float,
        typer.Option(
            "--ratio",
            metavar="R",
            help="Units of each treatment for each of the control.",
            rich_help_panel=_DEALT,
        ),
    ] = 1.0,
    units_per_day: Annotated[
        float | None,
        typer.Option(
            "--units-per-day",
            metavar="U",
            help="New units a day, to tell the days.",
            show_default=False,
            rich_help_panel=_DEALT,
        ),
    ] = None,
    traffic: Annotated[
        float,
        typer.Option(
            "--traffic", metavar="SHARE", help="The share of them that takes part.", rich_help_panel=_DEALT
        ),
    ] = 1.0,
    tuning_units: Annotated[
        int | None,
        typer.Option(
            "--tuning-units",
            metavar="N",
            help="The plan's: units of two variants at which looking is cheapest.",
            show_default=f"{TUNING_UNITS}",
            rich_help_panel=_DEALT,
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many units an experiment needs, for the sequential analysis and for one look at the end.

    The power is that of the last look; a sequential analysis may find the effect at an earlier one.

    With --units the question is turned round: what is found with so many?

    $ promptab experiment sample-size --baseline 0.15 --mde 0.10 --relative
    $ promptab experiment sample-size --mean 1.2 --sd 0.9 --mde 0.05 --direction decrease --units-per-day 400
    $ promptab experiment sample-size --baseline 0.7 --events-per-unit 5 --correlation 0.2 --units 2000
    $ promptab experiment sample-size --baseline 0.02 --margin 0.005 --direction decrease --json
    """
    from promptab.analysis.sizing import SizeQuestion, plan_sample_size  # noqa: PLC0415 - brings scipy

    _check_numbers(
        {
            "--events-per-unit": (events_per_unit, _Bounds(low=1.0)),
            "--event-cv": (event_cv, _Bounds(low=0.0)),
            "--correlation": (correlation, _Bounds(low=0.0, high=1.0)),
            "--history-correlation": (history_correlation, _Bounds(above=-1.0, below=1.0)),
            "--margin": (margin, _Bounds(low=0.0)),
            "--power": (power, _Bounds(above=0.0, below=1.0)),
            "--alpha": (alpha, _Bounds(above=0.0, below=0.5)),
            "--units": (units, _Bounds(low=2.0)),
            "--ratio": (ratio, _Bounds(above=0.0)),
            "--units-per-day": (units_per_day, _Bounds(above=0.0)),
            "--traffic": (traffic, _Bounds(above=0.0, high=1.0)),
            "--tuning-units": (tuning_units, _Bounds(low=2.0)),
        }
    )
    chance, error_rate = planning_defaults(power, alpha)
    found = None
    if history is not None:
        told = {
            "--baseline": baseline,
            "--mean": mean,
            "--sd": sd,
            "--events-per-unit": events_per_unit,
            "--event-cv": event_cv,
            "--correlation": correlation,
        }
        _refuse_beside_from(told)
        found = run(lambda lab: lab.metrics.measured_history(history, metric), url=url)
        outcome = _measured(found, direction)
    else:
        if metric is not None:
            raise InvalidInputError(
                "--metric", metric, "given with --from", "say whose history is to be measured"
            )
        outcome = _told(baseline, mean, sd, direction or "increase", (events_per_unit, event_cv, correlation))
    question = SizeQuestion(
        effect=mde,
        units=units,
        power=chance,
        relative=relative,
        margin=margin,
        alpha=error_rate,
        variants=variants,
        allocation=ratio,
        history_correlation=history_correlation,
        traffic=traffic,
        units_per_day=units_per_day,
        tuning_units=TUNING_UNITS if tuning_units is None else tuning_units,
    )
    if found is not None:
        question = _with_history(question, found, tuning_units)
    try:
        plan = plan_sample_size(outcome, question)
    except InvalidInputError as error:
        named = {"effect": "--mde"}.get(error.field, f"--{error.field.replace('_', '-')}")
        raise InvalidInputError(named, error.value, error.bound, error.remedy) from error
    document = {**plan.model_dump(mode="json"), "history": found}
    emit(document, as_json=as_json, human=lambda to: print_plan(to, plan, found))


class _Bounds(NamedTuple):
    """What a number has to be, as `check_number` takes it."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None


def _check_numbers(told: Mapping[str, tuple[float | None, _Bounds]]) -> None:
    """Refuse what no formula can take by the option's own name."""
    for option, (value, bounds) in told.items():
        if value is not None:
            check_number(
                option, value, **{name: end for name, end in bounds._asdict().items() if end is not None}
            )


def _refuse_beside_from(told: dict[str, float | None]) -> None:
    for option, value in told.items():
        if value is not None:
            raise InvalidInputError(option, value, "left out beside --from", "the history tells it")


def _told(
    baseline: float | None,
    mean: float | None,
    sd: float | None,
    direction: Direction,
    clustering: tuple[float | None, float | None, float | None],
) -> Outcome:
    """Return what the options say of the control."""
    from promptab.analysis.sizing import Outcome  # noqa: PLC0415 - as above
    from promptab.stats.clustering import Clustering  # noqa: PLC0415
    from promptab.stats.power import Mean, Proportion  # noqa: PLC0415

    events_per_unit, cv, correlation = clustering
    factor = 1.0
    if events_per_unit is not None:
        factor = Clustering(events_per_unit, cv or 0.0, correlation or 0.0).variance_factor
    else:
        for option, value in (("--event-cv", cv), ("--correlation", correlation)):
            if value is not None:
                raise InvalidInputError(option, value, "given with --events-per-unit")
    if baseline is not None:
        for option, value in (("--mean", mean), ("--sd", sd)):
            if value is not None:
                raise InvalidInputError(option, value, "left out beside --baseline", "name a rate or a mean")
        if not 0.0 < baseline < 1.0:
            raise InvalidInputError("--baseline", baseline, "a rate between 0 and 1", "write 15 % as 0.15")
        return Outcome(Proportion(baseline), baseline, "percent", direction, factor, events_per_unit)
    if sd is None:
        remedy = "give --baseline for a rate, --mean and --sd for a mean, or --from to measure it"
        raise InvalidInputError("--sd" if mean is not None else "--baseline", None, "given", remedy)
    check_number("--sd", sd, above=0.0)
    value = None if mean is None else check_number("--mean", mean)
    return Outcome(Mean(sd), value, "number", direction, factor, events_per_unit)


def _measured(history: MetricHistory, direction: Direction | None) -> Outcome:
    from promptab.analysis.sizing import Outcome  # noqa: PLC0415 - as above

    outcome = Outcome.of_history(history)
    return outcome if direction is None else outcome._replace(direction=direction)


def _with_history(question: SizeQuestion, history: MetricHistory, tuning_units: int | None) -> SizeQuestion:
    """Fill in what was not told."""
    if question.units_per_day is None:
        question = question._replace(units_per_day=history.units_per_day)
    if question.history_correlation is None and _is_usable(history.history_correlation):
        question = question._replace(history_correlation=history.history_correlation)
    if tuning_units is None and history.tuning_units is not None:
        question = question._replace(tuning_units=history.tuning_units)
    return question


def _is_usable(correlation: float | None) -> bool:
    """A history that tells everything would leave nothing to find out; it is an accident of few units."""
    return correlation is not None and abs(correlation) < 1.0
