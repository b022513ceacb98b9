"""The store: immutable artifacts named by key, each a directory that appears whole or not at all.

    <root>/store.json                     which format this is
    <root>/objects/ab/<key>/              payloads and manifest.json
    <root>/quarantine/<key>-<n>/          a damaged artifact with reason.json
    <root>/sweeps/<id>/                   see storage.sweeps
    <root>/_tmp/<host>-<pid>-<uuid>/      work in progress, and litter of killed processes

Done means that the manifest verifies, never that a file exists. Any number of processes may commit the same key:
the first one wins, the others return as if they had. Does not protect against somebody who forges manifests.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import commit as commits
from storage.commit import atomic_write_bytes, full_disk_is_clear, publish, staging, sync, write_synced
from storage.crash import point
from storage.errors import ArtifactMissing, StorageError
from storage.manifest import (
    MANIFEST,
    Damaged,
    Manifest,
    Payload,
    check,
    check_payload,
    measure,
    plain,
    read_bytes,
    seal,
    unseal,
)
from storage.process import host
from storage.quarantine import set_aside, set_aside_before
from storage.schemas import TABLES

VERSION = 1
KEY = re.compile(r"[0-9a-f]{16,64}")
OWN = {"store.json", "objects", "quarantine", "sweeps", "_tmp", "lost+found"}


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its directory and what its manifest says."""

    key: str
    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of one payload. Raises StorageError if the manifest does not list it."""
        if name not in self.manifest.payloads:
            listed = ", ".join(sorted(self.manifest.payloads))
            raise StorageError(f"artifact {self.key} has no payload {name!r}; it has: {listed}")
        return self.path / name


class Store:
    """A store on a local or shared file system."""

    def __init__(self, root: str | os.PathLike[str], create: bool = True) -> None:
        """Open the store at `root`, or make one in a new or empty directory.

        Raises StorageError if it is another version's, something else than a store, not writable, or, with
        `create=False`, not there.
        """
        self.root = Path(root).absolute()
        try:
            with full_disk_is_clear(self.root, "store.json"):
                self._open(create)
        except OSError as error:
            raise StorageError(f"cannot use {self.root} as a store: {error.strerror}") from error

    def _open(self, create: bool) -> None:
        label = self.root / "store.json"
        if label.exists():
            return self._check_version(label)
        if not create:
            raise StorageError(f"there is no store at {self.root}")
        if self.root.exists():
            foreign = sorted(name for name in os.listdir(self.root) if name not in OWN and name[0] != ".")
            if foreign:
                raise StorageError(f"{self.root} is neither a store nor empty: it holds {foreign[0]!r}")
        atomic_write_bytes(self.root, label, seal({"format": "dlq-store", "version": VERSION}))

    def _check_version(self, label: Path) -> None:
        try:
            found = unseal(read_bytes(label))
        except Damaged as damage:
            raise StorageError(f"{label} is not readable as a store's label: {damage}") from damage
        if found.get("format") != "dlq-store":
            raise StorageError(f"{label} names another format: {found.get('format')!r}")
        if found.get("version") != VERSION:
            raise StorageError(
                f"{self.root} is a store of version {found.get('version')}; this dlq reads version {VERSION}"
            )

    # -- reading ---------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """Where the artifact of `key` is or would be."""
        if not KEY.fullmatch(key):
            raise StorageError(f"not an artifact key: {key!r} (16 to 64 lower-case hexadecimal digits)")
        return self.root / "objects" / key[:2] / key

    def has(self, key: str) -> bool:
        """True if the artifact is there and size and SHA-256 of every payload are right (all bytes are read).

        A damaged artifact is moved to quarantine and counts as absent.
        """
        return self._examine(key) is not None

    def open(self, key: str, verify: bool = True) -> Artifact:
        """The artifact of `key`, all payloads hashed, or only its manifest checked with `verify=False`.

        Raises ArtifactMissing if it is absent or was damaged (and is now in quarantine).
        """
        artifact = self._examine(key, payloads=verify)
        if artifact is None:
            raise ArtifactMissing(f"artifact {key} is not in the store {self.root}")
        return artifact

    def keys(self) -> Iterator[str]:
        """Keys of everything committed, in order, unverified."""
        for shard in sorted((self.root / "objects").glob("??")):
            for name in sorted(os.listdir(shard)):
                if KEY.fullmatch(name):
                    yield name

    def artifacts(self) -> Iterator[Artifact]:
        """Everything committed whose manifest verifies, in order of key; payloads are not read."""
        for key in self.keys():
            artifact = self._examine(key, payloads=False)
            if artifact is not None:
                yield artifact

    def sound(self, artifact: Artifact, name: str) -> bool:
        """Whether one payload is whole; if not, the artifact goes to quarantine."""
        try:
            check_payload(artifact.path, name, artifact.manifest.payloads[name])
        except Damaged as damage:
            self.quarantine(artifact.key, str(damage))
            return False
        return True

    def _examine(self, key: str, payloads: bool = True) -> Artifact | None:
        path = self.path(key)
        if not os.path.lexists(path):
            return None
        try:
            manifest = check(path, key) if payloads else Manifest.read(path, key)
        except Damaged as damage:
            self.quarantine(key, str(damage))
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise StorageError(f"cannot read artifact {key} in {self.root}: {error.strerror}") from error
            self.quarantine(key, "the disk reports a read error")
            return None
        return Artifact(key, path, manifest)

    # -- writing ---------------------------------------------------------------------------------------------

    @contextmanager
    def commit(
        self,
        key: str,
        kind: str,
        spec: Mapping[str, Any],
        inputs: Mapping[str, str],
        facts: Mapping[str, Any],
        tables: Mapping[str, str],
    ) -> Iterator[Path]:
        """Yield an empty directory to write payloads (plain files) into; publish it as `key` on a clean exit.

        `facts` (such as seconds, peak_memory_bytes) and `tables` (table name -> payload name) are read at the end,
        so they may be filled inside the block. If another process published `key` first, its artifact stays and
        this one is dropped, which is success. On any exception nothing is published and nothing is left.
        Raises StorageFull if the store has no room, also when a library inside the block found out.
        """
        final = self.path(key)
        with full_disk_is_clear(self.root, f"{kind} {key}"), staging(self.root) as staged:
            point("commit.staged")
            yield staged
            point("commit.filled")
            manifest = Manifest(
                key=key,
                kind=kind,
                spec=plain(spec, "spec"),
                inputs=dict(inputs),
                facts=plain(facts, "facts"),
                payloads=_measure_and_sync(staged),
                tables=dict(tables),
                created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
                host=host(),
                pid=os.getpid(),
            )
            _check_tables(manifest)
            point("commit.synced")
            write_synced(staged / MANIFEST, manifest.to_bytes())
            sync(staged)
            point("commit.sealed")
            self._publish(staged, final, key)
        point("commit.done")

    def _publish(self, staged: Path, final: Path, key: str) -> None:
        for _ in range(100):
            if publish(staged, final):
                return
            if self._examine(key) is not None:  # lost against a whole one; a damaged one is now out of the way
                return sync(final.parent)
        raise StorageError(f"artifact {key} keeps being damaged while it is committed in {self.root}")

    def quarantine(self, key: str, reason: str) -> Path | None:
        """Move a damaged artifact aside and say why. None if it was already gone, or is whole after all."""
        return set_aside(self.root, self.path(key), key, reason)

    def quarantined(self) -> list[tuple[Path, str]]:
        """Every damaged artifact set aside, with the reason."""
        return set_aside_before(self.root)

    def delete(self, key: str) -> bool:
        """Remove an artifact (garbage collection): it disappears at once and whole. False if it was not there."""
        with staging(self.root) as staged:
            try:
                os.rename(self.path(key), staged / "deleted")
            except FileNotFoundError:
                return False
            point("delete.moved")
        return True

    def sweep_litter(self, older_than: float = commits.LITTER_SECONDS) -> list[str]:
        """Remove what killed processes left in _tmp; see storage.commit.sweep_litter."""
        return commits.sweep_litter(self.root, older_than)


def _measure_and_sync(staged: Path) -> dict[str, Payload]:
    payloads = {}
    for path in sorted(staged.iterdir()):
        if path.is_symlink() or not path.is_file() or path.name == MANIFEST:
            raise StorageError(f"an artifact holds plain files only, and no {MANIFEST} of its own: {path.name!r}")
        payloads[path.name] = measure(path)
        sync(path)
    return payloads


def _check_tables(manifest: Manifest) -> None:
    for table, name in manifest.tables.items():
        if table not in TABLES:
            raise StorageError(f"unknown table {table!r}; the tables are: {', '.join(TABLES)}")
        if name not in manifest.payloads:
            raise StorageError(f"table {table!r} names {name!r}, which is not among the payloads")
