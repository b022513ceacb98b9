"""Named places where a test may kill this process with SIGKILL, to see what the disk looks like then.

`point(name)` does nothing unless the environment has DLQ_CRASH_AT=name or DLQ_CRASH_AT=name:n; then the n-th pass
of that place ends the process without any cleanup, as the kernel's memory killer or a preempted node would.
It simulates death of a process, not loss of power: what the kernel already holds survives.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = (
    "commit.staged",  # the staging directory exists and is empty
    "commit.filled",  # the caller has written its payloads
    "commit.synced",  # payloads are hashed and on disk
    "commit.sealed",  # the manifest is written and on disk
    "commit.renamed",  # the artifact is published, its parent directory not yet synced
    "commit.done",
    "replace.written",  # a small file is complete under its temporary name
    "replace.renamed",  # it has its final name, the directory not yet synced
    "append.written",  # an event line is in the file, not yet synced
    "append.done",
    "quarantine.reasoned",  # the reason is written, the damaged artifact still in place
    "quarantine.moved",
    "delete.moved",  # out of objects/, bytes not yet freed
)

_passes: Counter[str] = Counter()


def point(name: str) -> None:
    """Die here if the environment asks for it."""
    wanted = os.environ.get("DLQ_CRASH_AT")
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place == name:
        _passes[name] += 1
        if _passes[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
