"""promptab: versioned prompts and models, sticky experiments, honest comparison, promotion and rollback."""

from promptab.analysis import Comparison
from promptab.choice import Choice
from promptab.diff import VersionDiff
from promptab.errors import (
    ConflictError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
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
from promptab.experiments import ABTestManager
from promptab.lab import Lab, open  # noqa: A004 - `promptab.open` is the name users write
from promptab.library import FileSystemPromptLibrary
from promptab.metrics import MetricsCollector, MetricsSummary, PerformancePeriod
from promptab.models import (
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
from promptab.versions import UnderstatedVersionWarning, VersionManager

__version__ = "0.1.0"

__all__ = [
    "ABTestManager",
    "Assignment",
    "Choice",
    "Comparison",
    "ConflictError",
    "Deployment",
    "ExperimentStatus",
    "FileSystemPromptLibrary",
    "InvalidInputError",
    "Lab",
    "Message",
    "MessageTemplate",
    "MetricEvent",
    "MetricsCollector",
    "MetricsSummary",
    "MissingExtraError",
    "NotFoundError",
    "PerformancePeriod",
    "PromptExperiment",
    "PromptFileError",
    "PromptMetrics",
    "PromptType",
    "PromptVariant",
    "PromptVersion",
    "PromptabError",
    "StateError",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "TemplateError",
    "TemplateLimitError",
    "Tokens",
    "UnderstatedVersionWarning",
    "VariableError",
    "VersionDiff",
    "VersionManager",
    "VersionStatus",
    "__version__",
    "open",
]
