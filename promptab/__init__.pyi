# The public names of promptab: `promptab/__init__.py` loads from this list, and type checkers read it.

from .alerts.alert import Alert
from .alerts.channel import AlertSettings, Webhook
from .alerts.delivery import Delivery, ToldAlert
from .analysis.planned import InteractionResult, MetricHistory, ReplayResult
from .analysis.result import AnalysisResult
from .analysis.shadows import ShadowReport
from .bandit import Bandit, Rebalancing
from .calls import Call, CallObserver, FinishedCall, ObservedStream, Price, PriceBook, Usage
from .cases import Case, CaseResult, Expectation
from .choice import Choice
from .completing import Completion
from .decisions.deciding import decide, redecide
from .decisions.decision import Decision, DecisionState
from .decisions.guard import Guard
from .decisions.stored import StoredDecision
from .delivering.passes import DeliveryReport
from .diff import VersionDiff
from .errors import (
    ConflictError,
    GateError,
    InvalidInputError,
    MissingExtraError,
    NeedsStoreError,
    NotFoundError,
    NotLeadingError,
    PromptabError,
    PromptFileError,
    StateError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
    TemplateError,
    TemplateLimitError,
    VariableError,
)
from .experiments import ABTestManager
from .guardrails import Guardrail
from .lab import Lab
from .library import FileSystemPromptLibrary
from .metrics import MetricsCollector, MetricsSummary, PerformancePeriod
from .models import (
    Assignment,
    Deployment,
    ExperimentStatus,
    Message,
    MessageTemplate,
    MetricEvent,
    PromptExperiment,
    PromptMetrics,
    PromptType,
    PromptVariant,
    PromptVersion,
    Tokens,
    VersionStatus,
)
from .opening import open  # noqa: A004
from .plan import AnalysisPlan
from .policy import Policy, RampStep
from .queueing import QueueSettings, QueueStats
from .rollout import Rollout
from .shadow_place import ShadowPlace
from .shadowing import ShadowSettings, ShadowStats
from .stats.metric import MetricDefinition
from .tracking import track_cache_operation, track_llm_call, track_rag_retrieval
from .trying import CaseReport
from .versions import UnderstatedVersionWarning, VersionManager
from .watching import WatchUpdate

__version__: str

__all__ = [
    "ABTestManager",
    "Alert",
    "AlertSettings",
    "AnalysisPlan",
    "AnalysisResult",
    "Assignment",
    "Bandit",
    "Call",
    "CallObserver",
    "Case",
    "CaseReport",
    "CaseResult",
    "Choice",
    "Completion",
    "ConflictError",
    "Decision",
    "DecisionState",
    "Delivery",
    "DeliveryReport",
    "Deployment",
    "Expectation",
    "ExperimentStatus",
    "FileSystemPromptLibrary",
    "FinishedCall",
    "GateError",
    "Guard",
    "Guardrail",
    "InteractionResult",
    "InvalidInputError",
    "Lab",
    "Message",
    "MessageTemplate",
    "MetricDefinition",
    "MetricEvent",
    "MetricHistory",
    "MetricsCollector",
    "MetricsSummary",
    "MissingExtraError",
    "NeedsStoreError",
    "NotFoundError",
    "NotLeadingError",
    "ObservedStream",
    "PerformancePeriod",
    "Policy",
    "Price",
    "PriceBook",
    "PromptExperiment",
    "PromptFileError",
    "PromptMetrics",
    "PromptType",
    "PromptVariant",
    "PromptVersion",
    "PromptabError",
    "QueueSettings",
    "QueueStats",
    "RampStep",
    "Rebalancing",
    "ReplayResult",
    "Rollout",
    "ShadowPlace",
    "ShadowReport",
    "ShadowSettings",
    "ShadowStats",
    "StateError",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "StoredDecision",
    "TemplateError",
    "TemplateLimitError",
    "Tokens",
    "ToldAlert",
    "UnderstatedVersionWarning",
    "Usage",
    "VariableError",
    "VersionDiff",
    "VersionManager",
    "VersionStatus",
    "WatchUpdate",
    "Webhook",
    "decide",
    "open",
    "redecide",
    "track_cache_operation",
    "track_llm_call",
    "track_rag_retrieval",
]
