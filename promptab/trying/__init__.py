"""Trying versions on the cases of their prompt, with a real client."""

from promptab.trying.report import CaseReport, TriedCase
from promptab.trying.run import try_cases
from promptab.trying.trial import Trial, Trying

__all__ = ["CaseReport", "Trial", "TriedCase", "Trying", "try_cases"]
