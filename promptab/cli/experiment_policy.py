"""The policy of an experiment on the command line: the one that `promptab.yaml` names, and changing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from promptab.allocation import new_salt
from promptab.cli.arguments import actor_or_user
from promptab.cli.options import ActorOption, ExperimentArgument, JsonOption, ReasonOption, UrlOption
from promptab.cli.output import emit, note, run
from promptab.errors import NotFoundError, PromptFileError
from promptab.library.policies import PolicyFile, read_policy_file
from promptab.models import PromptExperiment, UnitKind
from promptab.plan import AnalysisPlan
from promptab.policy import Policy

POLICY_FILE = Path("promptab.yaml")
NO_POLICY = "none"
DEFAULTS = "ab_testing"
"""The name of what the block of that name declares."""

PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="What is done about the outcomes: a policy of promptab.yaml, ab_testing for that block of it, or none.",
        show_default="the ab_testing block, if there is one",
    ),
]
PolicyFileOption = Annotated[
    Path, typer.Option("--policy-file", metavar="FILE", help="Where policies are declared.")
]


class ChosenPolicy(NamedTuple):
    policy: Policy | None = None
    plan: AnalysisPlan | None = None
    unit: UnitKind = "user"
    salt: str | None = None

    def plan_with(self, *, window_hours: float | None) -> AnalysisPlan | None:
        """Return the plan with this measurement window, where one is given."""
        if window_hours is None:
            return self.plan
        declared = {} if self.plan is None else dict(self.plan)
        return AnalysisPlan(**declared | {"window_hours": window_hours})


def chosen_policy(name: str | None, path: Path) -> ChosenPolicy:
    """Return the policy that is named, or that the file gives every experiment.

    Raises `NotFoundError` for a name that the file does not have, and `PromptFileError`.
    """
    if name == NO_POLICY:
        return ChosenPolicy()
    declared = declared_in(path)
    defaults = declared.ab_testing
    if name is None and defaults is not None and defaults.enabled:
        note(f"note: policy of the ab_testing block in {path}; --policy none for none")
    elif name is None:
        return ChosenPolicy()
    if name is None or (name == DEFAULTS and defaults is not None):
        assert defaults is not None  # noqa: S101 - narrows the type
        salt = f"{defaults.hash_seed}{new_salt()}" if defaults.hash_seed else None
        return ChosenPolicy(defaults.policy, defaults.plan, defaults.unit, salt)
    if name not in declared.policies:
        known = [*declared.policies, *([DEFAULTS] if defaults is not None else [])]
        there = f"{path} has {', '.join(known)}" if known else f"{path} declares none, or is not there"
        raise NotFoundError("policy", name, there)
    criteria = declared.policies[name]
    return ChosenPolicy(criteria.policy, criteria.plan)


def planning_defaults(
    power: float | None, alpha: float | None, path: Path = POLICY_FILE
) -> tuple[float, float]:
    """Return the power and alpha that are given; what is left out is what the `ab_testing` block gives experiments."""
    defaults = declared_in(path).ab_testing if power is None or alpha is None else None
    plan, policy = AnalysisPlan(), Policy()
    if defaults is not None and defaults.enabled:
        plan, policy = defaults.plan, defaults.policy
        left_out = [f"power {plan.power:g}"] * (power is None) + [f"alpha {policy.alpha:g}"] * (alpha is None)
        note(f"note: {' and '.join(left_out)} of the ab_testing block in {path}")
    return plan.power if power is None else power, policy.alpha if alpha is None else alpha


def declared_in(path: Path) -> PolicyFile:
    """Return what the file declares; nothing where there is none of the usual name. Raises `PromptFileError`, also
    where another file is not there: what it declares would not hear of anything.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path != POLICY_FILE:
            raise PromptFileError(str(path), "there is no such file") from None
        return PolicyFile()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(str(path), f"it cannot be read: {error}") from error
    return read_policy_file(text, path=str(path))


def set_policy(
    experiment: ExperimentArgument,
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="A policy of promptab.yaml, ab_testing for that block of it, or none.",
            show_default=False,
        ),
    ],
    *,
    reason: ReasonOption = "",
    policy_file: PolicyFileOption = POLICY_FILE,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an experiment another policy. The same one changes nothing.

    On an experiment that runs a new analysis begins: only units first exposed from now on are read, and what was
    decided before and not applied is void.

    $ promptab experiment policy greeting careful --reason "costs have doubled"
    """
    chosen = chosen_policy(policy, policy_file)
    changed = run(
        lambda lab: lab.experiments.set_policy(
            experiment, chosen.policy, reason=reason, actor=actor_or_user(actor)
        ),
        url=url,
    )
    for field in ("minimum_units", "power") if policy == DEFAULTS and chosen.plan is not None else ():
        has, wanted = getattr(changed.plan, field), getattr(chosen.plan, field)
        if has != wanted:
            note(
                f"note: the plan stays as it is, with {field} {has} and not {wanted}; a plan is given to an "
                "experiment when it is created"
            )
    emit(changed, as_json=as_json, human=lambda to: to.print(_told(changed), soft_wrap=True))


def _told(experiment: PromptExperiment) -> str:
    if experiment.policy is None:
        return f"experiment {experiment.name} has no policy: nothing is decided about it by itself"
    if experiment.policy_digest is None:
        return f"experiment {experiment.name} has the policy {experiment.policy.digest[:12]} once it starts"
    reads = ""
    if experiment.policy_since is not None:
        reads = (
            f" since {experiment.policy_since:%Y-%m-%d %H:%M} UTC, and reads units first exposed from then on"
        )
    return f"experiment {experiment.name} has the policy {experiment.policy_digest[:12]}{reads}"
