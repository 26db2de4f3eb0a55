"""`python -m tests.calibration`: measure, print the page, and write it with its counts beside this file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.calibration import record
from tests.calibration.cells import Job, Key, Result, Runs, jobs
from tests.calibration.page import page

README = Path(__file__).with_name("README.md")
MEASURED = Path(__file__).with_name("measured.json")


def main() -> None:
    arguments = parsed()
    runs = Runs().tenth() if arguments.quick else Runs()
    todo = jobs(runs)
    found: dict[Key, Result] = {}
    if arguments.page or arguments.only or arguments.missing:
        found = record.read(MEASURED.read_text(encoding="utf-8"))
        todo = {key: job for key, job in todo.items() if key[0] in arguments.only}
    if arguments.missing:
        todo = {key: job for key, job in jobs(runs).items() if key not in found}
    for key, result in measured(todo, arguments.jobs):
        found[key] = result
        if not arguments.quick:
            # each at once, so that a run that is cut short loses no more than what was under way
            MEASURED.write_text(record.written(found), encoding="utf-8")
    written = page(found, runs)
    sys.stdout.write(written)
    if not arguments.quick:
        README.write_text(written, encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="a tenth of the experiments; nothing is written")
    what.add_argument(
        "--only",
        action="append",
        default=[],
        choices=sorted({section for section, _ in jobs(Runs())}),
        help="measure one section again, after a change that touches no other; may be repeated",
    )
    what.add_argument("--missing", action="store_true", help="measure what there are no counts of yet")
    what.add_argument("--page", action="store_true", help="write the page from the counts there are")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    return parser.parse_args()


def measured(todo: Mapping[Key, Job], processes: int) -> Iterator[tuple[Key, Result]]:
    # a fresh interpreter each: a forked one would share the threads of numpy's libraries
    with ProcessPoolExecutor(max_workers=processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(job): key for key, job in todo.items()}
        for done, future in enumerate(as_completed(futures), start=1):
            yield futures[future], future.result()
            sys.stderr.write(f"\r{done} of {len(todo)} cells")
    sys.stderr.write("\n")


if __name__ == "__main__":
    main()
