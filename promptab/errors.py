"""Every error that promptab raises on purpose.

    PromptabError
    ├── NotFoundError (LookupError)         a change names something that does not exist
    ├── ConflictError                       somebody else was faster, or both sides changed; look again and retry
    │   └── NotLeadingError                 another process leads by now, and does what this one was about to do
    ├── InvalidInputError (ValueError)      the argument is wrong; the message names field, value, bound and remedy
    │   ├── TemplateError                   a template that does not parse or uses what is not allowed; has a line
    │   ├── TemplateLimitError              a render that costs more than its limits allow
    │   ├── VariableError                   a variable is missing, unknown or of the wrong type
    │   └── PromptFileError                 a file in prompts/ that cannot be read; has a path and a line
    ├── StateError                          right arguments, wrong moment: an illegal transition, a protected version
    │   ├── GateError                       cases do not let a version take the place of what is live; names them
    │   └── NeedsStoreError                 a call that does not wait would have to; await the one that does
    ├── StoreError                          the database
    │   ├── StoreUnavailableError           it cannot be reached, read or written now
    │   └── StoreVersionError               it belongs to a newer promptab, or to another application
    └── MissingExtraError (ImportError)     an optional package is not installed

A caller that wants to retry catches `ConflictError` and `StoreUnavailableError`; nothing else changes by
trying again.
"""

from __future__ import annotations


class PromptabError(Exception):
    """The root: catching it catches every error that promptab raises on purpose."""


class NotFoundError(PromptabError, LookupError):
    """There is no `kind` (version, experiment, prompt ...) called `key`."""

    def __init__(self, kind: str, key: str, remedy: str = "") -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"no {kind} {_shown(key)}" + (f"; {remedy}" if remedy else ""))

    def __str__(self) -> str:
        # LookupError's subclasses may quote their argument; this is a sentence
        return str(self.args[0])


class ConflictError(PromptabError):
    """The state is no longer what the caller saw: another writer won, or both sides changed."""


class NotLeadingError(ConflictError):
    """Another process has begun to lead since; nothing was changed, and the new leader looks for itself."""


class InvalidInputError(PromptabError, ValueError):
    """`field` was given `value`, which is outside `bound`. Nothing was changed."""

    def __init__(self, field: str, value: object, bound: str, remedy: str = "") -> None:
        self.field = field
        self.value = value
        self.bound = bound
        self.remedy = remedy
        missing = value is None and bound.startswith("given")
        said = f"{field} is not {bound}" if missing else f"{field}: {_shown(value)} is not {bound}"
        super().__init__(said + (f"; {remedy}" if remedy else ""))


class TemplateError(InvalidInputError):
    """A template that does not parse, or asks for something that templates may not do."""

    def __init__(self, message: str, *, template: str = "template", line: int | None = None) -> None:
        self.template = template
        self.line = line
        where = f"{template}, line {line}" if line is not None else template
        PromptabError.__init__(self, f"{where}: {message}")
        self.field, self.value, self.bound, self.remedy = "template", template, "a valid template", ""


class TemplateLimitError(InvalidInputError):
    """A template whose source, output or work is larger than its limits."""

    def __init__(self, message: str, *, template: str = "template") -> None:
        self.template = template
        PromptabError.__init__(self, f"{template}: {message}")
        self.field, self.value, self.bound, self.remedy = "template", template, "within its limits", ""


class VariableError(InvalidInputError):
    """A template variable that is missing, unknown, or not what `validation` declares."""

    def __init__(self, variable: str, message: str) -> None:
        self.variable = variable
        PromptabError.__init__(self, message)
        self.field, self.value, self.bound, self.remedy = f"variables.{variable}", None, "as declared", ""


class PromptFileError(InvalidInputError):
    """A file of the prompt library that cannot be used; the other files still load."""

    def __init__(self, path: str, message: str, *, line: int | None = None) -> None:
        self.path = path
        self.line = line
        PromptabError.__init__(
            self, f"{path}:{line}: {message}" if line is not None else f"{path}: {message}"
        )
        self.field, self.value, self.bound, self.remedy = "file", path, "a valid prompt file", ""


class StateError(PromptabError):
    """The request is well formed, but not allowed in the present state."""


class GateError(StateError):
    """What is known of a prompt's cases does not let the version go live; `cases` are the names of those at fault."""

    def __init__(self, message: str, *, cases: tuple[str, ...] = ()) -> None:
        self.cases = cases
        super().__init__(message)


class NeedsStoreError(StateError):
    """`choose_nowait` cannot answer from memory; `await choose(...)` with the same arguments asks the store."""


class StoreError(PromptabError):
    """The database refused, failed or does not fit."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached, read or written at the moment.

    `passing` is False where waiting alone does not help, such as for a file that may not be written to.
    """

    def __init__(self, message: str, *, passing: bool = True) -> None:
        self.passing = passing
        super().__init__(message)


class StoreVersionError(StoreError):
    """The database was made by a newer promptab, or is not a promptab database; it was left untouched."""


class MissingExtraError(PromptabError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"the package {package!r} is not installed; install it with: pip install 'promptab[{extra}]'"
        )


_SHOWN_CHARS = 80


def _shown(value: object) -> str:
    """Return a short, printable form of a refused value: long input must not flood a log."""
    if isinstance(value, str):
        more = f"… ({len(value)} characters)" if len(value) > _SHOWN_CHARS else ""
        return f"{value[:_SHOWN_CHARS]!r}{more}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - whatever an object's own repr does, the refusal has to get out
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"
