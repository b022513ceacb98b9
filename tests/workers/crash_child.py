"""What the killed processes run: `dlq` with a crash point armed. Importable, for the fork server."""

from __future__ import annotations

import os
import sys


def dlq(arguments: list[str], crash_at: str, output: str) -> None:
    """Run one dlq command line; dies by SIGKILL at `crash_at` if it gets there."""
    sys.stdout = sys.stderr = open(output, "a", buffering=1)  # noqa: SIM115  # the process ends with it
    os.environ["DLQ_CRASH_AT"] = crash_at
    from cli.app import run

    sys.exit(run(arguments))
