"""The variants of an experiment as they are typed: `1.0.0=1`, `short:1.1.0=1`, `few=1` with a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from promptab.checks import check_name
from promptab.cli.arguments import read_json_object, read_number, split_pairs
from promptab.cli.references import Written, parse_prompt
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.models import PromptType, PromptVariant
from promptab.records import Json


class VariantsWritten(NamedTuple):
    variants: tuple[PromptVariant, ...]

    @property
    def serve_versions(self) -> bool:
        return any(variant.version is not None for variant in self.variants)


class Target(NamedTuple):
    """The experiment's name, and the prompt it is on."""

    experiment: str
    prompt_type: PromptType
    prompt_name: str | None
    """None where it is the experiment's own name."""
    exists: bool


def parse_variants(
    variants: Sequence[str], configs: Sequence[str], shadows: Sequence[str] = ()
) -> VariantsWritten:
    """Read --variant, --config and --shadow. Raises `InvalidInputError` for a configuration of no variant."""
    given = {
        key: read_json_object(f"--config {key}", text)
        for key, text in split_pairs("--config", configs).items()
    }
    made = (
        *(_variant(text, given) for text in variants),
        *(_variant(text, given, shadow=True) for text in shadows),
    )
    keys = [variant.key for variant in made]
    for key in given:
        if key not in keys:
            raise InvalidInputError("--config", key, f"for one of the variants {', '.join(keys)}")
    return VariantsWritten(made)


def _variant(text: str, configs: Mapping[str, Json], *, shadow: bool = False) -> PromptVariant:
    what, equals, number = text.rpartition("=")
    if not equals and shadow:
        raise InvalidInputError(
            "--shadow", text, "KEY=SHARE", "say on which share of the units, such as =0.1"
        )
    if not equals:
        what, number = text, "1"
    given = read_number(f"{'--shadow' if shadow else '--variant'} {what}", number)
    weight, share = (1.0, given) if shadow else (given, None)
    key, colon, version = what.partition(":")
    if colon:
        return PromptVariant(version, weight, key=key, config=configs.get(key), shadow=share)
    if what in configs and not what[:1].isdigit():
        return PromptVariant(None, weight, key=what, config=configs[what], shadow=share)
    return PromptVariant(what, weight, config=configs.get(what), shadow=share)


async def prompt_of_experiment(
    lab: Lab, name: str, *, prompt_type: str | None, prompt: str | None, written: VariantsWritten
) -> Target:
    """Return what the experiment is on: as told, else by the store, else (configurations alone) nothing.

    Raises `InvalidInputError` where the type can only be guessed.
    """
    experiment, of_name = name, prompt_type
    kind, slash, rest = name.partition("/")
    if prompt is None and slash and kind in set(PromptType):
        experiment, of_name = check_name("name", rest), kind
    wanted = Written(experiment, None, None) if prompt is None else parse_prompt(prompt, prompt_type)
    told = wanted.prompt_type or (None if of_name is None else PromptType.parse(of_name))
    if prompt_type is not None and told != PromptType.parse(prompt_type):
        raise InvalidInputError("type", prompt_type, f"the type in {name}", "leave --type out")
    versions = await lab.versions.list_versions(wanted.name, told)
    kinds = sorted({version.prompt_type for version in versions})
    if told is None and len(kinds) != 1:
        if kinds or written.serve_versions:
            labels = " or ".join(f"--type {kind}" for kind in kinds) or "--type system"
            raise InvalidInputError("type", None, "known from the name alone", f"say it: {labels}")
        told = PromptType.CONFIG
    return Target(
        experiment, told or kinds[0], None if prompt is None else wanted.name, exists=bool(versions)
    )
