"""Events as rows, and the batches in which they reach a store's writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from promptab.models import Exposure, MetricEvent, Tokens
from promptab.stores.schema import events, microseconds

EVENT_COLUMNS = tuple(column.name for column in events.columns if column.name != "sequence")

EventRow = tuple[Any, ...]
"""One event as the values of `EVENT_COLUMNS`, in their order."""

Encode = Callable[[MetricEvent], EventRow]

EXPERIMENT_AT = EVENT_COLUMNS.index("experiment_id")
VARIANT_AT = EVENT_COLUMNS.index("variant")
UNIT_AT = EVENT_COLUMNS.index("unit")
METRICS_AT = EVENT_COLUMNS.index("metrics")
METADATA_AT = EVENT_COLUMNS.index("metadata")
TIME_AT = EVENT_COLUMNS.index("at")

_ROW_BYTES = 1_000
"""What an event without named metrics and metadata takes in memory, with its record; its texts are short."""

_EXPOSURE_BYTES = 500

_sorted_json = json.JSONEncoder(sort_keys=True).encode


class Batch(NamedTuple):
    """What one transaction writes: first the exposures, then the events, each in their order."""

    exposures: Sequence[Exposure]
    events: Sequence[EventRow]


class BatchOutcome(NamedTuple):
    """What became of a batch that was committed, by the position of an event in it."""

    conflicts: frozenset[int] = frozenset()
    """Events that are there already with other content."""
    flagged: frozenset[int] = frozenset()
    """Events of a unit that had been exposed to another variant."""


def row_encoder(*, absent: Any, blob: Callable[[str], Any], truth: Mapping[bool | None, Any]) -> Encode:
    """Return what turns an event into the values that a driver takes.

    `absent` stands for what the event does not say, `blob` makes binary data of hex digits, `truth` maps
    True, False and None. Mappings become JSON with sorted keys, so that equal ones are equal texts.
    """

    def encode(event: MetricEvent) -> EventRow:
        # a record's own dict: an attribute of it takes twice as long
        told = vars(event)
        tokens: Tokens | None = told["tokens"]
        if tokens is None:
            fresh = cached = output = total = absent
        else:
            fresh, cached, output, total = (
                absent if tokens.input is None else tokens.input,
                absent if tokens.cached_input is None else tokens.cached_input,
                absent if tokens.output is None else tokens.output,
                absent if tokens.total is None else tokens.total,
            )
        metrics, metadata = told["metrics"], told["metadata"]
        happened, recorded = told["timestamp"], told["recorded_at"]
        at = microseconds(happened)
        return (
            blob(told["event_id"].replace("-", "")),
            told["kind"],
            absent if (value := told["version_id"]) is None else value,
            absent if (value := told["experiment_id"]) is None else value,
            absent if (value := told["variant"]) is None else value,
            absent if (value := told["user_id"]) is None else value,
            truth[told["success"]],
            absent if (value := told["response_time"]) is None else value,
            fresh,
            cached,
            output,
            total,
            absent if (value := told["cost"]) is None else value,
            absent if (value := told["user_rating"]) is None else value,
            _sorted_json(dict(metrics)) if metrics else absent,
            _sorted_json(dict(metadata)) if metadata else absent,
            at,
            at if recorded is happened else microseconds(recorded),
            truth[told["flagged"]],
        )

    return encode


event_row = row_encoder(absent=None, blob=bytes.fromhex, truth={True: True, False: False, None: None})
"""As plain Python values: absent is None, the id is bytes."""


def row_bytes(row: EventRow) -> int:
    """Return roughly what a waiting event takes in memory."""
    metrics, metadata = row[METRICS_AT], row[METADATA_AT]
    # whatever stands for an absent one is no text
    size = _ROW_BYTES + 4 * len(metrics) if type(metrics) is str else _ROW_BYTES
    return size + 4 * len(metadata) if type(metadata) is str else size


def exposure_bytes(exposure: Exposure) -> int:
    """Return roughly what a waiting exposure takes in memory."""
    return _EXPOSURE_BYTES + 4 * len(str(exposure.attributes)) if exposure.attributes else _EXPOSURE_BYTES
