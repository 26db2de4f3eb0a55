"""`promptab.yaml`: the policies of a project, by name, the defaults of its experiments, and where alerts go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from promptab.alerts.alert import AlertKind
from promptab.alerts.channel import AlertSettings, read_alerts
from promptab.checks import check_mapping, check_name
from promptab.criteria import AbTesting, Criteria, read_ab_testing, read_criteria
from promptab.errors import InvalidInputError, PromptFileError
from promptab.library.located import JsonPath, LocatedJson
from promptab.library.yaml_text import parse_yaml

_KEYS = ("policies", "ab_testing", "alerts")
_TAKEN = {"none": "no policy at all", "ab_testing": "the block of that name"}
"""What the command line means by these, so that no policy can be called by them."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What the file declares."""

    policies: Mapping[str, Criteria] = field(default_factory=dict)
    """By name; in a policy's own fields, or in a shape that `read_criteria` reads."""
    ab_testing: AbTesting | None = None
    alerts: AlertSettings = field(default_factory=AlertSettings)
    """Without what `ab_testing` says not to be told of."""


def read_policy_file(text: str, *, path: str = "promptab.yaml") -> PolicyFile:
    """Read the text of such a file; an empty one declares nothing.

    Raises:
        PromptFileError: with the line of the entry at fault.
    """
    located = parse_yaml(text, path=path)
    if located.value is None:
        return PolicyFile()

    def refused_at(*at: str) -> AbstractContextManager[None]:
        return _with_line(path, located, at)

    with refused_at():
        document = check_mapping("promptab.yaml", located.value)
    for key in document:
        if key not in _KEYS:
            message = f"the key {key} is none of {', '.join(_KEYS)}"
            raise PromptFileError(path, message, line=located.line((key,)))
    policies = {}
    with refused_at("policies"):
        declared = check_mapping("policies", document.get("policies") or {})
    for name, policy in declared.items():
        with refused_at("policies", name):
            if name in _TAKEN:
                bound = "another name"
                raise InvalidInputError("policies", name, bound, f"--policy {name} means {_TAKEN[name]}")
            policies[check_name("policies", name)] = read_criteria(policy)
    ab_testing = None
    if document.get("ab_testing") is not None:
        with refused_at("ab_testing"):
            ab_testing = read_ab_testing(document["ab_testing"])
    with refused_at("alerts"):
        alerts = read_alerts(document.get("alerts") or {}, untold=_untold(ab_testing))
    return PolicyFile(policies, ab_testing, alerts)


def _untold(ab_testing: AbTesting | None) -> frozenset[AlertKind]:
    """Return what the block says not to tell."""
    if ab_testing is None:
        return frozenset()
    told: dict[AlertKind, bool] = {
        "significant": ab_testing.alert_on_significant_result,
        "sample_size": ab_testing.alert_on_sample_size_reached,
    }
    return frozenset(kind for kind, is_told in told.items() if not is_told)


@contextmanager
def _with_line(path: str, located: LocatedJson, at: JsonPath) -> Iterator[None]:
    try:
        yield
    except InvalidInputError as error:
        raise PromptFileError(path, str(error), line=_line_of(located, at, error)) from None


def _line_of(located: LocatedJson, at: JsonPath, error: InvalidInputError) -> int | None:
    """Return the line of what the error names, as far as that is one place below `at`."""
    names = re.split(r"[.\[\]]+", error.field)
    # of an unknown key or name the value is what stands there
    for name in (*names, error.value):
        below = [part for part in located.lines if part[: len(at)] == at != part and part[-1] == name]
        if len(below) == 1:
            at = below[0]
    return located.line(at)
