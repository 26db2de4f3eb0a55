"""A process of its own, for patterns that may never come to an end: whoever started it can end it.

Reads one JSON object, `{"patterns": [...], "text": "..."}`, and writes a line for each pattern as soon as it is
done: true, false, or a text that says why it is no pattern.
"""

import json
import re
import sys
import warnings

CPU_SECONDS = 10
"""After this the system ends the process, should nobody else be left to do it."""


def limit_time() -> None:
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def main() -> None:
    limit_time()
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    for pattern in asked["patterns"]:
        try:
            found: bool | str = re.search(pattern, asked["text"]) is not None
        except (re.error, OverflowError, RecursionError) as error:
            found = str(error)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
