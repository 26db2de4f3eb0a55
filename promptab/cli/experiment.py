"""`promptab experiment`: creating experiments, running them and ending them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.analyze import analyze
from promptab.cli.arguments import actor_or_user, read_numbers, read_time
from promptab.cli.experiment_policy import (
    POLICY_FILE,
    PolicyFileOption,
    PolicyOption,
    chosen_policy,
    set_policy,
)
from promptab.cli.experiment_status import experiment_status, print_status, status_document
from promptab.cli.interaction import interaction
from promptab.cli.options import ActorOption, ExperimentArgument, JsonOption, TypeOption, UrlOption
from promptab.cli.output import emit, note, run, table
from promptab.cli.promote_winner import promote_winner
from promptab.cli.rebalance import BanditOption, FloorOption, UniformOption, bandit_of, rebalance
from promptab.cli.replay import replay
from promptab.cli.sample_size import sample_size
from promptab.cli.variants import parse_variants, prompt_of_experiment
from promptab.cli.wording import day_and_minute, percent
from promptab.lab import Lab
from promptab.models import PromptExperiment

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Plan experiments, run them, say what they show, and end them.",
)


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name, and the prompt's unless --prompt says another.", show_default=False
        ),
    ],
    *,
    variant: Annotated[
        list[str],
        typer.Option(
            "--variant",
            metavar="VERSION=WEIGHT",
            help="Twice or more; also KEY:VERSION=WEIGHT, and KEY=WEIGHT with --config.",
            show_default=False,
        ),
    ],
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            "--shadow",
            metavar="VERSION=SHARE",
            help="Run beside what is served, on this share of the units, and served to nobody; KEY: as above.",
            show_default=False,
        ),
    ] = None,
    prompt_type: TypeOption = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="TYPE/NAME", help="The prompt, if it has another name.", show_default=False
        ),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=JSON", help="What a variant configures.", show_default=False),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control", metavar="KEY", help="What the others are compared with.", show_default="the first"
        ),
    ] = None,
    primary_metric: Annotated[
        str | None,
        typer.Option(
            "--primary-metric",
            metavar="METRIC",
            help="What decides.",
            show_default="the policy's, else success_rate",
        ),
    ] = None,
    policy: PolicyOption = None,
    policy_file: PolicyFileOption = POLICY_FILE,
    traffic: Annotated[
        float, typer.Option("--traffic", metavar="SHARE", help="The share of units that take part, 0 to 1.")
    ] = 1.0,
    unit: Annotated[
        str | None,
        typer.Option(
            "--unit", help="What is randomised: user, session, request or features.", show_default="user"
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Who takes part, such as \"plan == 'pro'\".",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="Experiments of one layer share no unit.",
            show_default="the prompt's",
        ),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            "--holdout", metavar="NAME", help="A group of units that is left out.", show_default=False
        ),
    ] = None,
    bandit: BanditOption = None,
    floor: FloorOption = None,
    uniform: UniformOption = None,
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="HOURS",
            help="Outcomes count for so long from a unit's first exposure.",
            show_default=False,
        ),
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Do not start it yet.")] = False,
    starts_at: Annotated[
        str | None,
        typer.Option("--starts-at", metavar="TIME", help="Serve from then on.", show_default=False),
    ] = None,
    ends_at: Annotated[
        str | None, typer.Option("--ends-at", metavar="TIME", help="Serve until then.", show_default=False)
    ] = None,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an experiment on two or more versions of a prompt, or on configurations, and start it.

    NAME may be written TYPE/NAME. Weights are relative: 1 and 1 are halves. With --shadow one variant is enough.
    --policy names one in promptab.yaml, by which `promptab decide` acts; an ab_testing block there is the policy of
    experiments for which none is named.

    $ promptab experiment create system/greeting --variant 1.0.0=1 --variant 1.1.0=1
    $ promptab experiment create trial --prompt system/greeting --draft --variant 1.0.0 --shadow new:1.1.0=0.1
    $ promptab experiment create tone --prompt system/greeting --draft --variant 1.0.0 --variant 1.1.0 --bandit thompson
    $ promptab experiment create top-k --draft --variant a --variant b --config 'a={"k": 3}' --config 'b={"k": 8}'
    """
    now = datetime.now(UTC)
    written = parse_variants(variant, config or (), shadow or ())
    adaptive = bandit_of(bandit, floor=floor, uniform=uniform)
    chosen = chosen_policy(policy, policy_file)

    async def work(lab: Lab) -> PromptExperiment:
        target = await prompt_of_experiment(
            lab, name, prompt_type=prompt_type, prompt=prompt, written=written
        )
        if written.serve_versions and not target.exists:
            note(
                f"note: there is no prompt {target.prompt_type}/{target.prompt_name or target.experiment} in this store"
            )
        return await lab.experiments.create_experiment(
            target.experiment,
            target.prompt_type,
            written.variants,
            status="draft" if draft else "running",
            prompt_name=target.prompt_name,
            control=control,
            primary_metric=primary_metric,
            plan=chosen.plan_with(window_hours=window),
            policy=chosen.policy,
            bandit=adaptive,
            traffic=traffic,
            unit=unit or chosen.unit,  # type: ignore[arg-type]  # the manager refuses what is no kind of unit
            where=where,
            layer=layer,
            holdout=holdout,
            starts_at=None if starts_at is None else read_time("--starts-at", starts_at, now=now),
            ends_at=None if ends_at is None else read_time("--ends-at", ends_at, now=now),
            salt=chosen.salt,
            created_by=actor_or_user(actor),
        )

    _change(work, url=url, as_json=as_json)


@app.command()
def start(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Start a draft.

    $ promptab experiment start top-k
    """
    _change(lambda lab: lab.experiments.start(experiment), url=url, as_json=as_json)


@app.command()
def pause(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Stop serving for a while; everybody keeps the variant they have for later.

    $ promptab experiment pause greeting
    """
    _change(lambda lab: lab.experiments.pause(experiment), url=url, as_json=as_json)


@app.command()
def resume(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Go on with a paused experiment.

    $ promptab experiment resume greeting
    """
    _change(lambda lab: lab.experiments.resume(experiment), url=url, as_json=as_json)


@app.command()
def stop(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """End an experiment without a winner. It cannot be started again.

    $ promptab experiment stop top-k
    """
    _change(lambda lab: lab.experiments.stop(experiment), url=url, as_json=as_json)


@app.command()
def complete(
    experiment: ExperimentArgument,
    *,
    winner: Annotated[
        str | None, typer.Option("--winner", metavar="KEY", help="The variant that won.", show_default=False)
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an experiment, with the winner if there is one. Promoting the winner is a step of its own.

    $ promptab experiment complete greeting --winner 1.1.0
    """
    _change(lambda lab: lab.experiments.complete(experiment, winner), url=url, as_json=as_json)


@app.command()
def weights(
    experiment: ExperimentArgument,
    weight: Annotated[
        list[str],
        typer.Argument(metavar="KEY=WEIGHT", help="Every variant; 0 stops new units.", show_default=False),
    ],
    *,
    evict: Annotated[
        bool, typer.Option("--evict", help="Deal the units of variants with weight 0 anew.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the weights. Whoever has a variant keeps it; the change takes effect two seconds later.

    $ promptab experiment weights greeting 1.0.0=1 1.1.0=4
    """
    split = read_numbers("weights", weight)
    _change(
        lambda lab: lab.experiments.update_weights(experiment, split, evict=evict), url=url, as_json=as_json
    )


@app.command()
def shadow(
    experiment: ExperimentArgument,
    variant: Annotated[str, typer.Argument(metavar="KEY", help="Which shadow.", show_default=False)],
    share: Annotated[
        float, typer.Argument(metavar="SHARE", help="Of the units, 0 to 1; 0 rests it.", show_default=False)
    ],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a shadow on another share of the units. More of them only adds units.

    $ promptab experiment shadow trial new 0.5
    """
    _change(lambda lab: lab.experiments.update_shadow(experiment, variant, share), url=url, as_json=as_json)


@app.command("list")
def list_experiments(
    *,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="draft, running, paused, completed or stopped.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of that name.", show_default=False)
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List experiments, newest first.

    $ promptab experiment list --status running
    """
    found = run(lambda lab: lab.experiments.list_experiments(name, status, prompt_type), url=url)
    emit(found, as_json=as_json, human=lambda to: _print_list(to, found))


@app.command()
def status(experiment: ExperimentArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show how an experiment is going: how long it runs, how many units it has, and whether the split is right.

    $ promptab experiment status greeting
    """
    now = datetime.now(UTC)
    found = run(lambda lab: experiment_status(lab, experiment, now=now), url=url)
    emit(status_document(found), as_json=as_json, human=lambda to: print_status(to, found))


app.command()(analyze)
app.command("policy")(set_policy)
app.command("promote-winner")(promote_winner)
app.command("sample-size")(sample_size)
app.command()(replay)
app.command()(interaction)
app.command()(rebalance)


def _change(work: Callable[[Lab], Awaitable[PromptExperiment]], *, url: str | None, as_json: bool) -> None:
    changed = run(work, url=url)
    emit(changed, as_json=as_json, human=lambda to: to.print(_told(changed)))


def _told(experiment: PromptExperiment) -> str:
    shares = ", ".join(f"{key} {percent(share)}" for key, share in experiment.traffic_split.items())
    winner = f", won by {experiment.winner}" if experiment.winner else ""
    beside = "".join(
        f"; {shadow.key} in the shadow of {percent(experiment.shadow_share(shadow.key))}"
        for shadow in experiment.shadows
    )
    return f"experiment {experiment.name} is {experiment.status}{winner}: {shares}{beside}"


def _print_list(to: Console, experiments: Sequence[PromptExperiment]) -> None:
    if not experiments:
        to.print("No experiment matches.")
        return
    rows = table("experiment", "status", "prompt", "variants", "started (UTC)", "winner")
    for experiment in experiments:
        prompt = f"{experiment.prompt_type}/{experiment.prompt_name}" if experiment.prompt_name else "-"
        shares = "\n".join(f"{key} {percent(share)}" for key, share in experiment.traffic_split.items())
        rows.add_row(
            experiment.name,
            experiment.status.value,
            prompt,
            shares,
            day_and_minute(experiment.started_at) or "-",
            experiment.winner or "-",
        )
    to.print(rows)
