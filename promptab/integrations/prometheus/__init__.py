"""Calls, feedback and tracked values as Prometheus metrics.

    from promptab.integrations import prometheus

    async with promptab.open() as lab:
        prometheus.expose(lab)        # and serve them as prometheus_client says, such as by start_http_server(9000)

Of each call of a model, under the labels `experiment` (its name), `variant`, `version` (`type/name@version`),
`model` (the one asked for) and `agent` (of `track_llm_call`); a label that does not apply is empty:

| metric | what |
| --- | --- |
| `request_latency_seconds` | histogram of calls that ended with an answer or an error |
| `http_errors_total` | those of them that ended without a whole answer |
| `llm_cost_dollars_total` | US dollars of calls whose cost is known |
| `llm_cost_unknown_total` | calls with an answer whose cost is not |
| `llm_tokens_total` | by `kind`: `input` (not from a cache), `cached_input`, `output` |
| `user_feedback_total` | ratings by `sentiment`: `positive` from 4, `negative` up to 2, `neutral` between |

What was cancelled, or never sent because the prompt did not render, is no request here. Runs in the shadow, which
nobody was served, are in none of these but in `shadow_request_latency_seconds` and so on, the same six under the
same labels.

Of what `track_rag_retrieval` tells, under `agent`, `experiment`, `variant`, `version`:
`rag_retrievals_total`, and the histograms `rag_similarity_score` (one observation for each document) and
`rag_retrieval_latency_seconds`.

Of `track_cache_operation`, under `operation`, `cache_type`, `experiment`, `variant`, `version`:
`cache_operations_total` by `result` (`hit`, `miss`, or empty), and the histogram
`cache_operation_latency_seconds`.

Each of these groups keeps at most `most_label_sets` sets of labels, 500 by default. What comes after that many is
counted all the same, with `other` in each of them (`kind`, `sentiment` and `result` stay), and one warning says so. A
set of a call is at most 34 lines of the exposition, so at most 17,034 are of calls; of runs in the shadow as many more.
"""

from __future__ import annotations

import importlib.util

from promptab.errors import MissingExtraError

if importlib.util.find_spec("prometheus_client") is None:
    raise MissingExtraError("prometheus-client", "prometheus")

from promptab.integrations.prometheus.exporting import PrometheusMetrics, expose

__all__ = ["PrometheusMetrics", "expose"]
