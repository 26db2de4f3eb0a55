"""The records: what crosses a border, as frozen pydantic models. A change is a new record.

All datetimes are aware and in UTC; all ids are UUIDs in their canonical text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

from pydantic import Field

from promptab.bandit import Bandit
from promptab.checks import check_json_object, check_label, check_number, check_text
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.records import Json, Record, Utc
from promptab.shadow_place import SHADOW_KEY, ShadowPlace

ENVIRONMENTS = ("production", "staging")
Environment = Literal["production", "staging"]


class Choices(StrEnum):
    """An enumeration that callers may write as text."""

    @classmethod
    def parse(cls, value: object, field: str = "status") -> Self:
        """Return the member. Raises `InvalidInputError` naming `field` and the members."""
        for member in cls:
            if value == member.value:
                return member
        raise InvalidInputError(field, value, f"one of {', '.join(cls)}")


class PromptType(Choices):
    """What a prompt is: three kinds of text, a model with its configuration, or any plain configuration."""

    SYSTEM = "system"
    USER = "user"
    MESSAGE = "message"
    MODEL = "model"
    CONFIG = "config"

    @classmethod
    def parse(cls, value: object, field: str = "prompt_type") -> Self:
        return super().parse(value, field)

    @property
    def has_template(self) -> bool:
        return self in {PromptType.SYSTEM, PromptType.USER, PromptType.MESSAGE}


class VersionStatus(Choices):
    DRAFT = "draft"
    ACTIVE = "active"
    PRODUCTION = "production"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


class ExperimentStatus(Choices):
    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"


class MessageTemplate(Record):
    """One message of a chat prompt: its role is structure and is never rendered."""

    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: str


class Message(Record):
    """One rendered message, in the shape that the providers' clients take."""

    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: str


class PromptVersion(Record):
    """One immutable content of a prompt, with the status and tags that move beside it."""

    version_id: str
    name: str
    prompt_type: PromptType
    version: str
    template: str = ""
    """The template of a text prompt; empty for chat prompts, models and configurations."""
    messages: tuple[MessageTemplate, ...] = ()
    """The templates of a chat prompt, in order; empty for everything else."""
    includes: Mapping[str, str] = Field(default_factory=dict)
    """Include reference as written in the template -> version_id that it was pinned to."""
    defaults: Json = Field(default_factory=dict)
    validation: Json | None = None
    """A JSON Schema of the variables, or None where nothing is declared."""
    config: Json = Field(default_factory=dict)
    """`model`, `parameters`, `tools`, `output` (`schema`, `format`); any JSON for the type `config`."""
    content_hash: str
    """SHA-256 in hex over type, templates, pinned includes, defaults, validation and config."""
    metadata: Json = Field(default_factory=dict)
    status: VersionStatus = VersionStatus.ACTIVE
    tags: tuple[str, ...] = ()
    """Sorted; environment tags included."""
    parent_version: str | None = None
    """version_id of the version that this one was made from."""
    created_at: Utc
    created_by: str | None = None

    @property
    def output_schema(self) -> Json | None:
        output = self.config.get("output")
        schema = output.get("schema") if isinstance(output, Mapping) else None
        return schema if isinstance(schema, Mapping) else None

    @property
    def label(self) -> str:
        """How people name it: `system/support_reply@1.2.0`."""
        return f"{self.prompt_type}/{self.name}@{self.version}"


class Deployment(Record):
    """One entry in the append-only history of an environment."""

    sequence: int
    """Order of entries in the store; later is larger."""
    name: str
    prompt_type: PromptType
    environment: Environment
    action: Literal["promote", "rollback", "withdraw", "keep"]
    """`keep`: what is live stays, and something was decided about an experiment on the prompt."""
    version_id: str | None
    """What is live after the move; None after a withdrawal."""
    version: str | None
    previous_version_id: str | None
    previous_version: str | None
    at: Utc
    actor: str | None = None
    reason: str = ""
    evidence: Json | None = None


@dataclass(frozen=True)
class PromptVariant:
    """What one arm of an experiment serves: a version, a configuration, or both.

    `weight` is relative and positive; `key` is the version string unless given, and has to be given where
    there is no version.

    `shadow` makes it one that is never served: it has no weight, and is run beside what is served to this share of
    the experiment's units (above 0, at most 1), with outcomes of its own.
    """

    version: str | None = None
    weight: float = 1.0
    description: str = ""
    key: str = ""
    config: Json | None = None
    metadata: Json = field(default_factory=dict)
    shadow: float | None = None

    def __post_init__(self) -> None:
        if self.version is None and self.config is None:
            raise InvalidInputError(
                "variant", self.key, "a variant that serves something", "give it a version, a config, or both"
            )
        if not self.key and self.version is None:
            raise InvalidInputError(
                "variant.key", self.key, "a name", "a variant without a version needs a key"
            )
        key = check_label("variant.key", self.key or self.version)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "weight", check_number(f"variants[{key}].weight", self.weight, above=0.0))
        if self.shadow is not None:
            share = check_number(f"variants[{key}].shadow", self.shadow, above=0.0, high=1.0)
            object.__setattr__(self, "shadow", share)
            if self.weight != 1.0:
                raise InvalidInputError(
                    f"variants[{key}].weight",
                    self.weight,
                    "left out",
                    "a shadow takes no part of what is served",
                )
        check_text(f"variants[{key}].description", self.description)
        if self.config is not None:
            object.__setattr__(self, "config", check_json_object(f"variants[{key}].config", self.config))
        object.__setattr__(self, "metadata", check_json_object(f"variants[{key}].metadata", self.metadata))


EVERY_UNIT = "*"
"""In the overrides of an experiment: the variant of all units that have no override of their own."""

UnitKind = Literal["user", "session", "request", "features"]


class PromptExperiment(Record):
    """Weighted variants of one prompt, or of plain configurations. Current weights are in `traffic_split`."""

    experiment_id: str
    name: str
    prompt_type: PromptType
    prompt_name: str | None
    """The prompt whose versions the variants serve; None where no prompt of that name exists."""
    variants: tuple[PromptVariant, ...]
    control: str
    """Key of the variant that the others are compared with: the first, unless declared."""
    traffic_split: Mapping[str, float]
    """Current weight of each variant, summing to 1; zero is allowed here."""
    status: ExperimentStatus
    traffic: float = 1.0
    """Enrolment: the share of units that are in the experiment at all."""
    traffic_history: tuple[tuple[Utc, float], ...] = ()
    """Since when which share has been enrolled; empty before the start."""
    unit: UnitKind = "user"
    sticky: bool = True
    where: str | None = None
    """Targeting: a condition over the unit's attributes, such as "plan == 'premium'"."""
    layer: str
    """Experiments of one layer never share a unit."""
    holdout: str | None = None
    shadows: tuple[PromptVariant, ...] = ()
    """Run beside what is served, each on its share of the units; never served, and in nothing that is analysed."""
    shadow_history: Mapping[str, tuple[tuple[Utc, float], ...]] = Field(default_factory=dict)
    """Of each shadow: since when it has been run on which share; empty before the start."""
    overrides: Mapping[str, str] = Field(default_factory=dict)
    """Unit -> variant key, for units that are shown a variant by hand and left out of the analysis."""
    has_reported: bool = False
    """Whether somebody reported a unit with another variant than its hash gives: then first meetings are looked up."""
    primary_metric: str = "success_rate"
    plan: AnalysisPlan = Field(default_factory=AnalysisPlan)
    """From the start on with what the policy says of metrics and alpha."""
    declared_plan: AnalysisPlan | None = None
    """The plan without what the policy says, frozen at the start; None before it, and without a policy."""
    policy: Policy | None = None
    """What is done about the outcomes; None: nothing is done by itself."""
    policy_digest: str | None = None
    """Of the policy, frozen at the start; None before it."""
    policy_since: Utc | None = None
    """Since when it has had this policy, where that changed after the start: units first exposed before are not
    read."""
    metadata: Json = Field(default_factory=dict)
    bandit: Bandit | None = None
    """How the weights follow the outcomes; None: they do not."""
    salt: str
    enrolment_salt: str
    uniform_salt: str | None = None
    """By which a bandit's uniform slice is chosen, where there is one."""
    starts_at: Utc | None = None
    ends_at: Utc | None = None
    created_at: Utc
    started_at: Utc | None = None
    ended_at: Utc | None = None
    winner: str | None = None
    created_by: str | None = None

    def has_ended(self, now: datetime) -> bool:
        """Whether it has ended on schedule, whatever its status says."""
        return self.ends_at is not None and now >= self.ends_at

    @property
    def peak_traffic(self) -> float:
        """The largest enrolment so far: units between `traffic` and this may have been enrolled before."""
        return max([self.traffic, *(share for _, share in self.traffic_history)])

    def variant(self, key: str) -> PromptVariant | None:
        return next((variant for variant in self.variants if variant.key == key), None)

    def shadow(self, key: str) -> PromptVariant | None:
        return next((shadow for shadow in self.shadows if shadow.key == key), None)

    def shadow_share(self, key: str) -> float:
        """Return the share of the units that a shadow is run on now; 0.0 where there is no such shadow."""
        if history := self.shadow_history.get(key):
            return history[-1][1]
        shadow = self.shadow(key)
        return 0.0 if shadow is None else shadow.shadow or 0.0

    @property
    def versions_in_use(self) -> frozenset[str]:
        """The version strings that it serves or runs in the shadow."""
        return frozenset(v.version for v in (*self.variants, *self.shadows) if v.version is not None)


UNIFORM_EPOCH = 0
"""The number of the epoch that a bandit's uniform slice is in from the start on, beside the others. Once other variants
take new units than at the start, the slice deals among these in an epoch of its own: below this, counted downwards."""


class Epoch(Record):
    """A stretch of an experiment with one set of weights. A unit belongs to the epoch of its first exposure."""

    experiment_id: str
    number: int
    """From 1 on; `UNIFORM_EPOCH` and below for the uniform slice."""
    starts_at: Utc
    weights: Mapping[str, float]
    segments: tuple[tuple[str, str], ...]
    """Who owns which part of [0, 2**64): (end in hex, variant key), ascending, the last end being 2**64."""
    evicted: tuple[str, ...] = ()
    """Variants whose earlier units are dealt anew instead of keeping their first variant."""

    @property
    def is_uniform(self) -> bool:
        """Whether it is of a bandit's uniform slice."""
        return self.number <= UNIFORM_EPOCH


AssignmentReason = Literal[
    "allocated",
    "kept",
    "override",
    "not_running",
    "not_enrolled",
    "not_targeted",
    "holdout",
    "other_experiment",
    "no_unit",
]


class Assignment(Record):
    """Which variant a unit gets, and why. `variant` is None where the unit is not in the experiment."""

    experiment_id: str
    unit: str | None
    variant: str | None
    version: str | None
    config: Json | None
    reason: AssignmentReason
    detail: str
    """The reason as a sentence."""
    epoch: int | None = None


class Exposure(NamedTuple):
    """The first time a unit met an experiment. Written once.

    A plain tuple, since one is made for every new unit while its request waits.
    """

    experiment_id: str
    unit: str
    variant: str
    epoch: int
    at: datetime
    """Aware, in UTC."""
    attributes: Json = MappingProxyType({})
    source: Literal["assigned", "reported", "override", "alias"] = "assigned"
    served: str | None = None
    """The variant that the unit was dealt instead when its first one was evicted; the analysis goes by the first."""
    propensity: float | None = None
    """The probability with which the unit got `variant`, above 0 and at most 1; None where that is not known: a variant
    that was shown by hand, or reported. Of a unit in a bandit's uniform slice it is what the slice gives."""

    @property
    def current(self) -> str:
        """The variant that the unit keeps."""
        return self.served or self.variant


class Tokens(Record):
    """Token counts of one call, in disjoint buckets; None means unknown, which is not zero."""

    input: int | None = None
    """Input that was not read from a cache."""
    cached_input: int | None = None
    output: int | None = None
    total: int | None = None
    """The sum where all buckets are known, or the one figure that the caller had."""


class MetricEvent(Record):
    """One use of a version, an outcome that came later (`kind` "outcome"), or either of a run in the shadow ("shadow").

    What was in the shadow has neither version nor experiment, variant or unit in the fields of these names, and so
    counts for none of them; `shadow` says whose it is.
    """

    event_id: str
    kind: Literal["use", "outcome", "shadow"] = "use"
    version_id: str | None = None
    success: bool | None = None
    response_time: float | None = None
    """Seconds."""
    tokens: Tokens | None = None
    user_rating: float | None = None
    """1 to 5."""
    cost: float | None = None
    """US dollars."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    metadata: Json = Field(default_factory=dict)
    experiment_id: str | None = None
    variant: str | None = None
    user_id: str | None = None
    """The unit."""
    timestamp: Utc
    """When it happened, by the caller's clock."""
    recorded_at: Utc
    """When promptab was told, by its own clock."""
    flagged: bool = False
    """The unit had been exposed to another variant: the event is kept, and left out of comparisons."""

    @property
    def shadow(self) -> ShadowPlace | None:
        """Whose run in the shadow it is; None for what was served."""
        return ShadowPlace(**self.metadata[SHADOW_KEY]) if self.kind == "shadow" else None


class PromptMetrics(Record):
    """What the events of one version add up to. Counts and rates of no events are 0.0; a mean is over the
    events that carried the measure.
    """

    version_id: str
    total_events: int = 0
    success_count: int = 0
    error_count: int = 0
    success_rate: float = 0.0
    """Successes over the events that said whether they succeeded."""
    avg_response_time: float = 0.0
    """Seconds."""
    response_time_count: int = 0
    avg_rating: float = 0.0
    rating_count: int = 0
    avg_tokens: float = 0.0
    tokens_count: int = 0
    total_tokens: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    avg_cost: float = 0.0
    cost_count: int = 0
    total_cost: float = 0.0
    """US dollars."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """Mean of each named metric."""
    first_event_at: Utc | None = None
    last_event_at: Utc | None = None
