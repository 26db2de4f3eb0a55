"""Stop a PostgreSQL server when whoever started it has ended, however: `stopping_server.py FOLDER USER COMMAND...`.

Waits for the end of its input, runs the command as that user (this one, if it is empty), and removes the folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

sys.stdin.read()
folder, user, *command = sys.argv[1:]
subprocess.run(command, user=user or None, capture_output=True, check=False)
shutil.rmtree(folder, ignore_errors=True)
