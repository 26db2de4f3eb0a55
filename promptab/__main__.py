"""`python -m promptab`: the command line, where no script of that name is on the path."""

from __future__ import annotations

from promptab.cli import main

main()
