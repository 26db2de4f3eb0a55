"""Tracked calls of a model: one neutral flow, and per provider the shape of its requests and answers.

No client's package is imported here. Clients, answers and errors are known by their shape, so what is not
installed is not missed, and a new release of a client is no new release of promptab.
"""

from promptab.calls.answer import Answer
from promptab.calls.call import Call
from promptab.calls.failures import Failure, FailureKind
from promptab.calls.finished import CallObserver, FinishedCall, Status, Subject
from promptab.calls.log import CallLog, CallStats
from promptab.calls.pricing import Price, PriceBook
from promptab.calls.request import Request
from promptab.calls.stream import ObservedStream
from promptab.calls.tracing import CallSpan, CallTracer
from promptab.calls.usage import Usage

__all__ = [
    "Answer",
    "Call",
    "CallLog",
    "CallObserver",
    "CallSpan",
    "CallStats",
    "CallTracer",
    "Failure",
    "FailureKind",
    "FinishedCall",
    "ObservedStream",
    "Price",
    "PriceBook",
    "Request",
    "Status",
    "Subject",
    "Usage",
]
