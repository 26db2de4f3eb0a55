"""Functions of the caller's own that judge an answer. They are code, so they run for those only who allow it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from promptab.errors import InvalidInputError

Function = Callable[[str], Any]


def load_functions(references: Iterable[str], *, allowed: bool) -> Mapping[str, Function]:
    """Return the functions by their reference, `module:name`.

    Raises `InvalidInputError` where there are some and they are not allowed, and for one that cannot be loaded.
    """
    wanted = sorted(set(references))
    if wanted and not allowed:
        raise InvalidInputError(
            "tests.expect.python",
            wanted[0],
            "allowed to run",
            "prompt files may be anybody's; if you trust these, allow it (--allow-python, allow_python=True)",
        )
    return {reference: _loaded(reference) for reference in wanted}


async def refusals(functions: Iterable[tuple[str, Function]], answer: str) -> list[str]:
    """Return a sentence for each function that does not accept the answer.

    It accepts by returning anything but False, and refuses by that or an exception; `assert` says why.
    """
    found = []
    for reference, function in functions:
        try:
            verdict = await _called(function, answer)
        except AssertionError as error:
            found.append(f"{reference} refuses it" + (f": {error}" if str(error) else ""))
        except Exception as error:  # noqa: BLE001 - whatever the caller's own code raises, the case has failed by it
            found.append(f"{reference} raised {type(error).__name__}: {error}")
        else:
            if verdict is False:
                found.append(f"{reference} refuses it")
    return found


async def _called(function: Function, answer: str) -> Any:
    # in a thread, since it may read files or ask another service
    verdict = await asyncio.to_thread(function, answer)
    return await verdict if inspect.isawaitable(verdict) else verdict


def _loaded(reference: str) -> Function:
    module, _, name = reference.partition(":")
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            "tests.expect.python", reference, f"a function that can be imported ({error})"
        ) from None
    if not callable(found):
        raise InvalidInputError("tests.expect.python", reference, "a function")
    function: Function = found
    return function
