"""Writing that a kill or a power cut cannot tear: stage aside, sync, rename.

Everything is first written under `<root>/_tmp/<host>-<pid>-<uuid>/`, on the same file system, and only a rename
gives it its real name. Renaming a directory onto an existing one fails, so the first writer wins and nobody
overwrites. No locks are used. Does not protect against a disk that acknowledges a sync it did not do, nor against
someone editing the store by hand (the hashes in the manifests find that later).
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.crash import point
from storage.errors import StorageFull
from storage.process import alive, host

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
LITTER_SECONDS = 24 * 3600.0


def means_full(error: BaseException) -> bool:
    """True if the error says that the disk or quota is full; libraries in Rust and C++ say it only in words."""
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL or os.strerror(errno.ENOSPC) in str(error)


@contextmanager
def full_disk_is_clear(root: Path, what: str) -> Iterator[None]:
    """Turn "no space left" from any library inside the block into one StorageFull line naming the store."""
    try:
        yield
    except StorageFull:
        raise
    except Exception as error:
        if not means_full(error):
            raise
        line = f"no space left while writing {what} to the store {root}: free some there, then resume"
        raise StorageFull(line) from error


def sync(path: Path) -> None:
    """fsync a file (its bytes) or a directory (its names)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Create `path`, which must not exist, with `data`, and sync the bytes."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_directory(path: Path) -> None:
    """Create a directory and its parents durably."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A new private directory under `<root>/_tmp`; what is left of it afterwards is removed, also on errors."""
    path = root / "_tmp" / f"{host()}-{os.getpid()}-{uuid.uuid4().hex}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish(staged: Path, final: Path) -> bool:
    """Give a staged directory its final name. False if somebody was first, whose directory then stays.

    An empty directory in the way is replaced (POSIX rename); nothing in the store ever makes one there.
    """
    make_directory(final.parent)
    try:
        os.rename(staged, final)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    point("commit.renamed")
    sync(final.parent)
    return True


def atomic_write_bytes(root: Path, path: Path, data: bytes) -> None:
    """Replace a small single-owner file: readers see the old bytes or the new ones, never a mixture."""
    with full_disk_is_clear(root, path.name), staging(root) as staged:
        make_directory(path.parent)
        temporary = staged / "new"
        write_synced(temporary, data)
        point("replace.written")
        os.replace(temporary, path)
        point("replace.renamed")
        sync(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Append one line with one write and sync it. A torn line that a dead writer left behind is closed first,
    so that it cannot swallow this one. `line` must not contain a newline."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        data = b"\n" * torn + line + b"\n"
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        point("append.written")
        os.fsync(handle)
        point("append.done")
    finally:
        os.close(handle)


def sweep_litter(root: Path, older_than: float = LITTER_SECONDS) -> list[str]:
    """Remove staging directories of dead processes of this host, and of any host once `older_than` seconds old.

    Returns their names. Two containers that share a host name and a store, but not process ids, can take each
    other's living staging directory for litter: the commit of the other then fails and is done again.
    """
    removed = []
    for path in sorted((root / "_tmp").glob("*")):
        if _is_litter(path, older_than):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def _is_litter(path: Path, older_than: float) -> bool:
    owner, _, rest = path.name.rpartition("-")[0].rpartition("-")
    try:
        newest = max(file.lstat().st_mtime for file in [path, *path.iterdir()])
    except OSError:  # it was just published or removed by its owner
        return False
    if time.time() - newest > older_than:
        return True
    return owner == host() and rest.isdigit() and not alive(int(rest))
