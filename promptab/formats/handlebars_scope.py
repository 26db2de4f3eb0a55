"""What the paths of a Handlebars template mean as Jinja2 expressions, block by block."""

from __future__ import annotations

import re
from typing import NamedTuple

from promptab.formats.handlebars import Path
from promptab.formats.jinja_writing import constant, is_name
from promptab.formats.known_values import Doubt, KnownValues, Shape

_MEMBER = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_LOOP = {"index": "loop.index0", "first": "loop.first", "last": "loop.last"}


class Step(NamedTuple):
    """A value on the way to another, as `user` is on the way to `user.name`."""

    source: str
    shape: Shape


class Reference(NamedTuple):
    """A value that a template looks up."""

    way: tuple[Step, ...]
    """From the variable of the template, or of a loop, to the value itself."""

    @property
    def source(self) -> str:
        return self.way[-1].source

    @property
    def shape(self) -> Shape:
        return self.way[-1].shape

    def presence(self, known: frozenset[str]) -> list[str]:
        """Conditions under which it is there; empty where it is certain. `known`: what is true at this place."""
        if self.source in known:
            return []
        doubtful = [
            step for step in self.way if step.shape.doubt is not Doubt.NONE and step.source not in known
        ]
        return [f"{step.source} is defined" for step in doubtful]

    def truth(self, known: frozenset[str]) -> str:
        """The condition that `{{#if}}` stands for."""
        return " and ".join([*self.presence(known), self.source])


class Scope(NamedTuple):
    """What names mean inside one block: those of `this`, and of the blocks around it."""

    this: Reference | None
    """None at the top, where a name is a variable of the template."""
    around: Scope | None
    values: KnownValues
    key: str | None = None
    """The name that `@key` has, in a loop over the members of an object; of a list it is the index."""
    in_loop: bool = False
    known: frozenset[str] = frozenset()
    """Expressions that are certain to be true here, as tested by the blocks around."""

    def inside(self, this: Reference, *, key: str | None = None, in_loop: bool | None = None) -> Scope:
        """The scope of a block that changes what `this` is."""
        looping = self.in_loop if in_loop is None else in_loop
        own_key = key if in_loop else self.key
        return Scope(this, self, self.values, own_key, looping, self.known | {this.source})

    def knowing(self, *sources: str) -> Scope:
        return self._replace(known=self.known | set(sources))

    def find(self, path: Path) -> Reference | str:
        """Return what a path means, or why it means nothing here."""
        if path.is_data:
            return self._data(path)
        scope: Scope = self
        for _ in range(path.up):
            if scope.around is None:
                return "leads out of the template"
            scope = scope.around
        return scope._member(path.steps)  # noqa: SLF001 - another scope of the same chain

    def _data(self, path: Path) -> Reference | str:
        name, *rest = path.steps or ("",)
        if name == "root" and not path.up:
            return self._root()._member(tuple(rest))  # noqa: SLF001 - as above
        if rest or path.up or name not in {*_LOOP, "key"}:
            return "is a context variable; promptab has variables only"
        if not self.in_loop:
            return "stands outside of any {{#each}}"
        source = self.key or "loop.index0" if name == "key" else _LOOP[name]
        return Reference((Step(source, Shape(Doubt.NONE)),))

    def _root(self) -> Scope:
        return self if self.around is None else self.around._root()  # noqa: SLF001 - as above

    def _member(self, steps: tuple[str, ...]) -> Reference | str:
        if self.this is not None:
            way, rest = self.this.way, steps
        elif not steps:
            return "means all variables together; promptab templates name each of them"
        elif not is_name(steps[0]):
            return f"begins with {steps[0]!r:.80}, which is no name that a Jinja2 variable can have"
        else:
            way, rest = (Step(steps[0], self.values.variable(steps[0])),), steps[1:]
        for step in rest:
            way = (*way, _next(way[-1], step))
        return Reference(way)


def _next(step: Step, name: str) -> Step:
    if name == "length" and step.shape.kinds == {"array"}:
        return Step(f"{step.source} | length", Shape(step.shape.doubt))
    if _MEMBER.fullmatch(name):
        source = f"{step.source}.{name}"
    else:
        source = f"{step.source}[{name if name.isdecimal() and len(name) < 10 else constant(name)}]"
    return Step(source, step.shape.member(name))
