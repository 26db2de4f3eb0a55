"""Numbers so small that their product is none: SQLite makes it 0, and PostgreSQL refuses the whole query."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

SMALLEST_FACTOR = 1e-150
"""The product of two such numbers is still one that a float holds."""


class _Flushed(FunctionElement[float]):
    name = "flushed"
    type = Float()
    inherit_cache = True


def flushed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the number, or 0 where it is nearer to that than `SMALLEST_FACTOR` and the database minds."""
    return _Flushed(column)


@compiles(_Flushed)
def _as_it_is(element: _Flushed, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


@compiles(_Flushed, "postgresql")
def _or_zero(element: _Flushed, compiler: SQLCompiler, **options: Any) -> str:
    number = compiler.process(element.clauses, **options)
    return f"CASE WHEN abs({number}) < {SMALLEST_FACTOR} THEN 0 ELSE ({number}) END"
