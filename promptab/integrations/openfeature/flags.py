"""What a flag key names, and the value that a choice has for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self

from openfeature.exception import FlagNotFoundError, TypeMismatchError
from openfeature.flag_evaluation import FlagType

from promptab.choice import Choice
from promptab.models import PromptType
from promptab.snapshot import Snapshot

_KINDS = frozenset(PromptType)
_TEXTS = (PromptType.SYSTEM, PromptType.USER)

_TYPES: Mapping[FlagType, tuple[type, ...]] = {
    FlagType.BOOLEAN: (bool,),
    FlagType.STRING: (str,),
    FlagType.INTEGER: (int,),
    FlagType.FLOAT: (float, int),
    FlagType.OBJECT: (dict, list),
}


class FlagKey(NamedTuple):
    """`[TYPE/]NAME[#KEY.KEY]`."""

    text: str
    kind: PromptType | None
    name: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        named, hash_sign, inside = text.partition("#")
        kind, slash, name = named.partition("/")
        typed = bool(slash) and kind in _KINDS
        return cls(
            text,
            PromptType(kind) if typed else None,
            name if typed else named,
            tuple(inside.split(".")) if hash_sign else (),
        )


class Prompt(NamedTuple):
    kind: PromptType
    name: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


class Flags:
    """The prompts that a snapshot serves, by name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._kinds: dict[str, set[PromptType]] = {}
        for prompt in served_prompts(snapshot):
            self._kinds.setdefault(prompt.name, set()).add(prompt.kind)

    def prompt(self, key: FlagKey, now: datetime) -> Prompt:
        """Return the prompt that is meant. Raises `FlagNotFoundError` for none, and for one of several."""
        kinds = self._kinds.get(key.name, set())
        if key.kind is not None:
            if key.kind in kinds:
                return Prompt(key.kind, key.name)
            raise FlagNotFoundError(f"no {key.kind} prompt {key.name!r} is served")
        if len(kinds) > 1:
            full = " or ".join(sorted(Prompt(kind, key.name).key for kind in kinds))
            raise FlagNotFoundError(f"{key.name!r} may be several prompts: ask for {full}")
        if kinds:
            return Prompt(next(iter(kinds)), key.name)
        live = self.snapshot.experiment(key.name, now)
        if live is None:
            raise FlagNotFoundError(f"no prompt or running experiment {key.name!r} is served")
        experiment = live.experiment
        return Prompt(experiment.prompt_type, experiment.prompt_name or experiment.name)


def served_prompts(snapshot: Snapshot) -> set[Prompt]:
    """Return all prompts that a request may be served from this snapshot."""
    on_experiment = (live.experiment for live in snapshot.experiments)
    return {
        *(Prompt(*key) for key in snapshot.latest),
        *(Prompt(kind, name) for kind, name, _ in snapshot.live),
        *(Prompt(one.prompt_type, one.prompt_name or one.name) for one in on_experiment),
    }


def changed_prompts(before: Snapshot, after: Snapshot) -> list[Prompt]:
    """Return the prompts that may serve something else than before, in the order of their keys."""
    prompts = served_prompts(before) | served_prompts(after)
    changed = (prompt for prompt in prompts if _offer(before, prompt) != _offer(after, prompt))
    return sorted(changed, key=lambda prompt: prompt.key)


def _offer(snapshot: Snapshot, prompt: Prompt) -> tuple[object, ...]:
    """Return everything that decides what a prompt serves."""
    return (
        snapshot.live.get((prompt.kind, prompt.name, "production")),
        snapshot.latest.get((prompt.kind, prompt.name)),
        snapshot.on_prompt(prompt.kind, prompt.name),
    )


def value_of(choice: Choice, key: FlagKey, wanted: FlagType, variables: Mapping[str, Any]) -> Any:
    """Return the value of a flag.

    Raises `TypeMismatchError`, `FlagNotFoundError` for a key that the configuration lacks, and as `Choice.render`.
    """
    if key.path:
        value = _inside(choice.config, key)
    elif wanted is FlagType.OBJECT:
        value = _whole(choice)
    elif wanted is FlagType.STRING and choice.prompt_type in _TEXTS:
        value = choice.render(**variables)
    else:
        default = "model" if choice.prompt_type is PromptType.MODEL and wanted is FlagType.STRING else "value"
        value = choice.config.get(default)
    # Python's booleans are integers, a flag's are not
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted is not FlagType.BOOLEAN):
        said = "nothing" if value is None else f"a {type(value).__name__}"
        remedy = (
            "" if key.path else f"; ask for a key of its configuration as {key.text}#KEY, or for an object"
        )
        raise TypeMismatchError(f"{key.text!r} is {said}, not a {wanted.value.lower()}{remedy}")
    return float(value) if isinstance(value, int) and wanted is FlagType.FLOAT else value


def _inside(config: Mapping[str, Any], key: FlagKey) -> Any:
    value: Any = config
    for part in key.path:
        if not isinstance(value, Mapping) or part not in value:
            raise FlagNotFoundError(f"the configuration of {key.name!r} has no {'.'.join(key.path)!r}")
        value = value[part]
    return value


def _whole(choice: Choice) -> dict[str, Any]:
    version = choice.version
    if version is None or not choice.prompt_type.has_template:
        return choice.config
    templates = [{"role": message.role, "template": message.content} for message in version.messages]
    if choice.prompt_type in _TEXTS:
        templates = [{"role": choice.prompt_type.value, "template": version.template}]
    return {"messages": templates, "config": choice.config}
