"""Which processes of this machine are alive, for notes and litter that name one.

Uses /proc where there is one. A process id says nothing across containers that share a host name.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host() -> str:
    """This machine's name, safe inside a file name."""
    return socket.gethostname().replace("/", "_") or "localhost"


def alive(pid: int) -> bool:
    """Whether a process with this id runs here; one that has ended but was not yet waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs and is somebody else's
    return _stat(pid)[:1] not in (["Z"], ["X"])


def born(pid: int) -> str:
    """Start of a process in clock ticks since boot, which tells a reused process id apart; "" if unknown."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty where that cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
