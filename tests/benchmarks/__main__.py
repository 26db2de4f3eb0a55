"""Every benchmark, one after the other: `python -m tests.benchmarks` prints the tables.

Each runs in a process of its own, so that none measures what another has loaded or left in memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

BENCHMARKS: Sequence[tuple[str, Sequence[str]]] = (
    ("assignment", ("--quick",)),
    ("recording", ("--quick",)),
    ("recording_postgres", ("--quick",)),
    ("analysis", ("--events", "100000", "--units", "10000")),
    ("analysis_large", ("--events", "200000", "--units", "20000")),
)
"""By module, and what makes it quick."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look: fewer rounds, less data")
    quick = parser.parse_args().quick
    for name, arguments in BENCHMARKS:
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *(arguments if quick else ())]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
