"""Cases: inputs of a prompt with what its answers have to be; what came of them, and what that means for a move."""

from promptab.cases.case import Case, Expectation, case_document, check_cases, digest_of
from promptab.cases.expecting import unmet
from promptab.cases.gate import Tried, check_gate
from promptab.cases.results import CaseResult, CaseStatus

__all__ = [
    "Case",
    "CaseResult",
    "CaseStatus",
    "Expectation",
    "Tried",
    "case_document",
    "check_cases",
    "check_gate",
    "digest_of",
    "unmet",
]
