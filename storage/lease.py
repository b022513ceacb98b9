"""A note that says who drives a sweep, so that a second driver can warn its user.

Advisory only: two drivers of one sweep do some work twice and lose nothing, because commits are idempotent. A note
is stale when its process is gone on this host; on another host that cannot be seen, and the note is believed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.commit import atomic_write_bytes, full_disk_is_clear, staging, write_synced
from storage.manifest import Damaged, read_bytes, seal, unseal
from storage.process import alive, born, host


@dataclass(frozen=True)
class Holder:
    """A driver: machine, process, birth of that process (kernel ticks, "" if unknown), since when it drives."""

    host: str
    pid: int
    born: str
    since: str

    @property
    def running(self) -> bool:
        """False only if it is certain that the process is gone."""
        if self.host != host():
            return True
        return alive(self.pid) and born(self.pid) in ("", self.born)


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


def _take(root: Path, path: Path, mine: Holder) -> Holder | None:
    data = seal(asdict(mine))
    with full_disk_is_clear(root, path.name), staging(root) as staged:
        write_synced(staged / "note", data)
        with suppress(FileExistsError):
            os.link(staged / "note", path)  # create-if-absent, with the content already in it
            return None
    other = holder(path)
    if other is not None and other.running:
        return other
    atomic_write_bytes(root, path, data)
    return None
