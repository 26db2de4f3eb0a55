"""A group whose commands are imported when one is used; their names and one-line helps are known before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

Usage = typer.BadParameter.__mro__[1]
