"""A note that says who drives a sweep, so that a second driver can warn its user.

Advisory only: two drivers of one sweep do some work twice and lose nothing, because commits are idempotent. A note
is stale when its process is gone on this host. On another host that cannot be seen: there a note is believed for
15 minutes after its holder last refreshed it, which it does with every event it logs. Does not protect a driver
elsewhere whose single task takes longer, nor against clocks that differ by minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.commit import atomic_write_bytes, full_disk_is_clear, staging, write_synced
from storage.manifest import Damaged, read_bytes, seal, unseal
from storage.process import alive, born, host

STALE_SECONDS = 15 * 60.0


@dataclass(frozen=True)
class Holder:
    """A driver: machine, process, birth of that process (kernel ticks, "" if unknown), since when it drives."""

    host: str
    pid: int
    born: str
    since: str


@contextmanager
def driving(root: Path, path: Path) -> Iterator[Holder | None]:
    """Hold the note `path` inside the block. Yields None, or the running driver that holds it already.

    If somebody else holds it, the block runs all the same and the note stays theirs.
    """
    mine = Holder(host(), os.getpid(), born(os.getpid()), datetime.now(UTC).isoformat(timespec="seconds"))
    other = _take(root, path, mine)
    try:
        yield other
    finally:
        if other is None and holder(path) == mine:
            path.unlink(missing_ok=True)


def holder(path: Path) -> Holder | None:
    """Who holds the note; None if there is none or it is unreadable."""
    try:
        return Holder(**unseal(read_bytes(path)))
    except (Damaged, TypeError):
        return None


def driver(path: Path) -> Holder | None:
    """Who holds the note and still runs, as far as can be seen from here."""
    found = holder(path)
    if found is None:
        return None
    if found.host == host():
        return found if alive(found.pid) and born(found.pid) in ("", found.born) else None
    return found if _age(path) < STALE_SECONDS else None


def refresh(path: Path) -> None:
    """Say that this process still drives; does nothing to the note of somebody else."""
    found = holder(path)
    if found is not None and (found.host, found.pid, found.born) == (host(), os.getpid(), born(os.getpid())):
        with suppress(FileNotFoundError):
            os.utime(path)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # it ended between two looks
        return STALE_SECONDS


def _take(root: Path, path: Path, mine: Holder) -> Holder | None:
    data = seal(asdict(mine))
    with full_disk_is_clear(root, path.name), staging(root) as staged:
        write_synced(staged / "note", data)
        with suppress(FileExistsError):
            os.link(staged / "note", path)  # create-if-absent, with the content already in it
            return None
    other = driver(path)
    if other is not None:
        return other
    atomic_write_bytes(root, path, data)
    return None
