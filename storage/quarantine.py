"""Damaged artifacts, moved out of the way with a note that says why. What is in quarantine is never a result.

Does not remove anything: whoever wants the space deletes `<root>/quarantine` by hand.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from storage.commit import full_disk_is_clear, make_directory, publish, sync, write_synced
from storage.crash import point
from storage.errors import StorageError
from storage.manifest import Damaged, check, read_bytes, seal, unseal
from storage.process import host


def set_aside(root: Path, path: Path, key: str, reason: str) -> Path | None:
    """Move the artifact at `path` to `<root>/quarantine/<key>-<n>/artifact`, beside reason.json.

    None if it was already gone, or is whole after all. Raises StorageError if the store cannot be changed.
    """
    try:
        with full_disk_is_clear(root, "a quarantine note"):
            return _set_aside(root, path, key, reason)
    except OSError as error:
        line = f"artifact {key} is damaged ({reason}) and cannot be moved to quarantine: {error.strerror}"
        raise StorageError(line) from error


def set_aside_before(root: Path) -> list[tuple[Path, str]]:
    """Every directory in quarantine that holds an artifact, with the reason."""
    found = []
    for note in sorted((root / "quarantine").glob("*/reason.json")):
        if os.path.lexists(note.parent / "artifact"):
            found.append((note.parent, _reason(note)))
    return found


def _set_aside(root: Path, path: Path, key: str, reason: str) -> Path | None:
    place = _new_place(root / "quarantine", key)
    note = {"key": key, "reason": reason, "found_at": datetime.now(UTC).isoformat(), "host": host()}
    write_synced(place / "reason.json", seal(note))
    point("quarantine.reasoned")
    try:
        os.rename(path, place / "artifact")
    except FileNotFoundError:
        shutil.rmtree(place, ignore_errors=True)
        return None
    point("quarantine.moved")
    if _give_back(place / "artifact", path, key):
        shutil.rmtree(place, ignore_errors=True)
        return None
    sync(place)
    return place


def _new_place(folder: Path, key: str) -> Path:
    make_directory(folder)
    number = 1
    while True:
        place = folder / f"{key}-{number}"
        try:
            place.mkdir()
        except FileExistsError:
            number += 1
        else:
            return place


def _give_back(moved: Path, path: Path, key: str) -> bool:
    """Undo the move if what was moved is whole: somebody repaired the key between our check and our rename."""
    try:
        check(moved, key)
    except (Damaged, OSError):
        return False
    publish(moved, path)
    return True


def _reason(note: Path) -> str:
    try:
        return str(unseal(read_bytes(note))["reason"])
    except Damaged as damage:
        return f"unknown, the note is damaged too: {damage}"
