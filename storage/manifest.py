"""The manifest of an artifact: what it is, what is in it, and a seal that shows any change to either.

manifest.json is sorted JSON. It carries size and SHA-256 of every payload and, in `digest`, the SHA-256 of itself
without that field; since the text is canonical, any changed byte shows. The seal detects accidents, not forgery.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.errors import StorageError

MANIFEST = "manifest.json"


class Damaged(Exception):
    """A file of the store is not what its seal says; the message is the reason."""


@dataclass(frozen=True)
class Payload:
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`tables` maps table names to payload names; `facts` are measured (seconds, peak_memory_bytes, ...)."""

    key: str
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, str]
    facts: dict[str, Any]
    tables: dict[str, str]
    payloads: dict[str, Payload]
    created_at: str
    host: str
    pid: int

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(payload.size for payload in self.payloads.values())

    def to_bytes(self) -> bytes:
        """The sealed text of manifest.json."""
        return seal(asdict(self))

    @classmethod
    def read(cls, directory: Path, key: str) -> Manifest:
        """Read and check the manifest of `key`, not its payloads. Raises Damaged."""
        fields = unseal(read_bytes(directory / MANIFEST))
        if fields.get("key") != key:
            raise Damaged(f"{MANIFEST} belongs to {fields.get('key')}")
        payloads = {name: Payload(**entry) for name, entry in fields.pop("payloads").items()}
        return cls(payloads=payloads, **fields)


def plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A copy as pure JSON values. Raises StorageError for anything JSON cannot hold, NaN included."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StorageError(f"{what} must be plain JSON values: {error}") from error
    return copy


def seal(fields: Mapping[str, Any]) -> bytes:
    """Canonical JSON text of `fields` plus their digest."""
    fields = plain(fields, "sealed fields")
    return _text({**fields, "digest": hashlib.sha256(_text(fields)).hexdigest()})


def unseal(raw: bytes) -> dict[str, Any]:
    """The fields of a sealed text. Raises Damaged if one byte differs from what `seal` wrote."""
    try:
        fields = json.loads(raw)
    except ValueError as error:
        raise Damaged("sealed JSON is torn or unreadable") from error
    if not isinstance(fields, dict) or "digest" not in fields:
        raise Damaged("sealed JSON has no digest")
    del fields["digest"]
    if seal(fields) != raw:
        raise Damaged("sealed JSON does not match its digest")
    return fields


def _text(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read_bytes(path: Path) -> bytes:
    """The bytes of a small file. Raises Damaged if it is not there or not a file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{path.name} is missing") from error


def measure(path: Path) -> Payload:
    """Size and SHA-256 of a file, read in pieces. Raises Damaged if it is not there or not a file."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return Payload(file.tell(), digest.hexdigest())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{path.name} is missing") from error


def check_payload(directory: Path, name: str, expected: Payload) -> None:
    """Raises Damaged unless the file has the recorded size and hash."""
    path = directory / name
    size = path.stat().st_size if path.is_file() else -1
    if size not in (-1, expected.size):
        raise Damaged(f"{name} has {size} bytes instead of {expected.size}")
    if measure(path) != expected:
        raise Damaged(f"{name} does not match its SHA-256")


def check(directory: Path, key: str) -> Manifest:
    """The manifest of an artifact whose every payload is whole. Raises Damaged with the reason."""
    manifest = Manifest.read(directory, key)
    for name, expected in sorted(manifest.payloads.items()):
        check_payload(directory, name, expected)
    return manifest
