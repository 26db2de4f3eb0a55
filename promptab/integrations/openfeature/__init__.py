"""promptab as a provider of OpenFeature.

    from openfeature import api
    from promptab.integrations import openfeature

    async with promptab.open() as lab:
        provider = await openfeature.provider(lab)
        api.set_provider_and_wait(provider)
        client = api.get_client()
        text = client.get_string_value("support_reply", "Help.", EvaluationContext("u42", {"variables": {...}}))
        top_k = client.get_integer_value("rag_top_k#top_k", 5, EvaluationContext("u42"))

A flag key is `NAME`, `TYPE/NAME`, or one of these with `#KEY`:

- `NAME` is a prompt's, of whichever type (`system`, `user`, `message`, `model`, `config`); where several
  types have it, say the type. It may also be the name of a running experiment, which means the prompt that
  the experiment is on.
- `#KEY` is a key of the configuration that is served, `#KEY.KEY` one inside it.

| asked for as | without `#KEY` | with `#KEY` |
| --- | --- | --- |
| string | the rendered text of a `system` or `user` prompt, the model of a `model`, else `value` | that key |
| boolean, integer, float | `value` of the configuration | that key; an integer is a float too |
| object | the configuration; of a prompt with templates, its `messages` (role, template) and `config` | that key |

The targeting key is the user. Of the context's attributes `variables` are those of the template, `session_id`
and `features` what `lab.choose` takes by these names, and all others the attributes of targeting. An
evaluation exposes the unit, as `lab.choose` does.

The variant is the experiment's, or else the number of the version. Reasons: SPLIT for an experiment,
TARGETING_MATCH for an override, STATIC for what is live, DEFAULT for a unit that is left out, STALE while the
store is away. The metadata has `version`, `version_id`, `content_hash`, `experiment`, `experiment_id`,
`source`, `explanation` and `snapshot_age` (seconds).

Evaluations are answered from the snapshot. The few that only the store can answer (a unit whose share of an
experiment has changed hands) wait for it where they are awaited or asked in another thread; in the thread of
the lab's event loop a call that is not awaited gets the default, with an error that says so.

`client.track(METRIC, context, TrackingEventDetails(value))` records an outcome (1.0 without a value) for the
unit in the experiment that the attribute `experiment` names, and without one in every running experiment that
the unit is in. It is on its way when `track` returns: `await provider.flush()` before the lab is closed.

The provider is ready when there is a snapshot. It looks for another one twice a second and tells what has
changed: as a change of configuration naming `TYPE/NAME` of each prompt that production, a new version or an
experiment moved; as stale when the store is away, and ready again when it is back; as an error where there is
nothing to serve from.
"""

from __future__ import annotations

import importlib.util

from promptab.errors import MissingExtraError

if importlib.util.find_spec("openfeature") is None:
    raise MissingExtraError("openfeature-sdk", "openfeature")

from promptab.integrations.openfeature.provider import (
    PromptabProvider,
    provider,
)

__all__ = ["PromptabProvider", "provider"]
