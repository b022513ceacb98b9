"""Order of syncs, races, full disks, errors in the middle, and litter."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from storage.artifacts import Store
from storage.commit import append_line, atomic_write_bytes
from storage.errors import StorageError, StorageFull
from storage.process import host
from storage.sweeps import Sweep
from storage.tables import write_table

KEY = "ab" + "0" * 30
OTHER = "ab" + "1" * 30


def test_everything_is_synced_before_it_is_renamed(
    store: Store, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payloads, manifest and directory reach the disk before the name does, the name before success."""
    seen: list[tuple[str, int | str]] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(handle: int) -> None:
        seen.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def watched_rename(old: Path, new: Path) -> None:
        seen.append(("rename", str(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    put(store)
    final = store.path(KEY)
    named = seen.index(("rename", str(final)))
    before, after = seen[:named], seen[named + 1 :]
    for name in ("a.bin", "b.bin", "manifest.json", "."):
        assert ("sync", (final / name).stat().st_ino) in before, name
    assert ("sync", (store.root / "objects").stat().st_ino) in before
    assert ("sync", final.parent.stat().st_ino) in after


def test_two_processes_commit_one_key(
    tmp_path: Path, run_workload: Callable[..., str], whole: Callable[[Path], bool]
) -> None:
    rounds = 60
    run_workload("race", str(tmp_path), str(rounds))
    winners = set()
    for number in range(rounds):
        directory = Store(tmp_path).path(f"{number:032x}")
        assert whole(directory)
        contents = {(directory / name).read_bytes() for name in ("one", "two", "three")}
        assert len(contents) == 1  # all three from the same writer
        winners |= contents
    assert winners == {b"A" * 1000, b"B" * 1000}  # each of them won at least once, so there was a race
    assert not os.listdir(tmp_path / "_tmp")


def test_two_processes_find_one_damage(
    tmp_path: Path, run_workload: Callable[..., str], whole: Callable[[Path], bool]
) -> None:
    rounds = 40
    run_workload("heal", str(tmp_path), str(rounds))
    store = Store(tmp_path)
    assert all(whole(store.path(f"{number:032x}")) for number in range(rounds))
    set_aside = [place / "artifact" for place, _ in store.quarantined()]
    assert len(set_aside) == rounds
    assert {(directory / "one").read_bytes() for directory in set_aside} == {b"D" * 1000}  # never a whole one


def test_the_second_of_two_commits_leaves_the_first(store: Store, put: Callable[..., None]) -> None:
    put(store, a=b"first")
    put(store, a=b"second")
    assert store.open(KEY).file("a").read_bytes() == b"first"
    assert not os.listdir(store.root / "_tmp")


def test_the_second_commit_replaces_a_damaged_first(store: Store, put: Callable[..., None]) -> None:
    put(store, a=b"first")
    (store.path(KEY) / "a").write_bytes(b"fIrst")
    put(store, a=b"second")
    assert store.open(KEY).file("a").read_bytes() == b"second"
    assert [reason for _, reason in store.quarantined()] == ["a does not match its SHA-256"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "I/O error")])
def test_an_error_in_the_block_publishes_nothing(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)), store.commit(KEY, "score", {}, {}, {}, {}) as folder:
        (folder / "half").write_bytes(b"half")
        raise error
    assert not store.has(KEY)
    assert not os.listdir(store.root / "_tmp")


def test_every_failing_sync_publishes_nothing(
    store: Store, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th sync fails, n = 1, 2, ... until a commit needs no more: before its name is given, nothing shows."""
    fsync = os.fsync
    for failing in range(1, 20):
        calls = 0

        def failing_fsync(handle: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, "I/O error")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", failing_fsync)
        key = f"ab{failing:030x}"
        try:
            put(store, key)
        except OSError as error:
            assert error.errno == errno.EIO
        else:
            break
        finally:
            monkeypatch.setattr(os, "fsync", fsync)
        assert not os.listdir(store.root / "_tmp")
        if store.path(key).exists():  # only the sync of the new name itself failed; the artifact is whole
            assert store.has(key)
    assert 5 <= failing < 19


def test_a_full_disk_is_one_clear_line(full_disk: Path, put: Callable[..., None]) -> None:
    store = Store(full_disk)
    put(store, KEY, a=b"x" * 600_000)
    with pytest.raises(StorageFull) as caught:
        put(store, OTHER, a=b"x" * 600_000)
    assert str(full_disk) in str(caught.value) and "no space left" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.has(KEY) and not store.has(OTHER) and not os.listdir(full_disk / "_tmp")
    assert store.delete(KEY)
    put(store, OTHER, a=b"x" * 600_000)
    assert store.has(OTHER)


def test_a_full_disk_seen_by_a_library(full_disk: Path) -> None:
    """Parquet (C++) and safetensors (Rust) report it in their own ways."""
    store = Store(full_disk)
    text = os.urandom(1_500_000).hex()  # does not compress below 1 MiB
    row = {"task": "t", "doc_id": 1, "kind": "generate", "text": text}
    with pytest.raises(StorageFull), store.commit(KEY, "evaluate", {}, {}, {}, {}) as folder:
        write_table(folder / "samples.parquet", "samples", [row])
    with pytest.raises(StorageFull), store.commit(KEY, "quantize", {}, {}, {}, {}) as folder:
        save_file({"codes": np.ones(2_000_000, np.uint8)}, folder / "block.safetensors")
    assert not store.has(KEY) and not os.listdir(full_disk / "_tmp")


def test_the_disk_fills_up_at_every_step(
    full_disk: Path, workload: ModuleType, whole: Callable[[Path], bool]
) -> None:
    """One more page free each time, until the whole run fits: every failure is clear and leaves nothing torn."""
    page, failures = 4096, 0
    for pages in range(1, 100):
        root = full_disk / str(pages)
        Store(root)
        free = os.statvfs(full_disk).f_bavail * page
        filler = full_disk / "filler"
        filler.write_bytes(b"\0" * (free - pages * page))
        try:
            workload.run(root)
        except StorageFull:
            failures += 1
        else:
            break
        finally:
            filler.unlink()
        assert all(whole(directory) for directory in (root / "objects").glob("*/*"))
        assert not os.listdir(root / "_tmp")
        workload.run(root)  # there is room now
        assert sorted(Store(root).keys()) == sorted(workload.KEYS)
        assert {event["key"] for event in Sweep(root, "night").events()} == set(workload.KEYS)
        subprocess.run(["rm", "-r", str(root)], check=True)
    assert 5 < failures < 98


def test_a_file_size_limit_is_a_full_store_too(tmp_path: Path, workload: ModuleType) -> None:
    """A real failure of write(2) that needs no mount."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        store = Store(tmp_path)
        with pytest.raises(StorageFull), store.commit(KEY, "score", {}, {}, {}, {}) as folder:
            (folder / "big").write_bytes(b"x" * 100_000)
        assert not store.has(KEY) and not os.listdir(tmp_path / "_tmp")

    _, status = os.waitpid(workload.forked(limited), 0)
    assert status == 0


def test_atomic_write_replaces_and_keeps_the_old_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "deep" / "plan.json"
    atomic_write_bytes(tmp_path, target, b"old")
    with monkeypatch.context() as patch:

        def no_space(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StorageFull):
            atomic_write_bytes(tmp_path, target, b"new")
    assert target.read_bytes() == b"old"
    atomic_write_bytes(tmp_path, target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path / "_tmp") == []


def test_appending_closes_a_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    append_line(log, b"one")
    with open(log, "ab") as file:
        file.write(b"tor")
    append_line(log, b"two")
    append_line(log, b"three")
    assert log.read_bytes() == b"one\ntor\ntwo\nthree\n"


def test_appending_from_many_processes_loses_no_line(tmp_path: Path, workload: ModuleType) -> None:
    log = tmp_path / "events.jsonl"

    def write(mark: int) -> None:
        for number in range(50):
            append_line(log, json.dumps([mark, number, "x" * 500]).encode())

    children = [workload.forked(write, mark) for mark in range(4)]
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line]
    assert sorted((mark, number) for mark, number, _ in lines) == [(m, n) for m in range(4) for n in range(50)]


def test_litter_goes_when_its_owner_is_gone(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hour = 3600.0
    cases = {
        f"{host()}-{dead.pid}-{'0' * 32}": (0.0, True),
        f"{host()}-{os.getpid()}-{'1' * 32}": (0.0, False),
        f"elsewhere-with-dashes-{dead.pid}-{'2' * 32}": (0.0, False),
        f"elsewhere-1-{'3' * 32}": (25 * hour, True),
        f"{host()}-{os.getpid()}-{'4' * 32}": (25 * hour, True),
        f"elsewhere-1-{'5' * 32}": (23 * hour, False),
    }
    for name, (age, _) in cases.items():
        folder = store.root / "_tmp" / name
        folder.mkdir()
        (folder / "half.parquet").write_bytes(b"PAR1")
        for path in (folder / "half.parquet", folder):
            os.utime(path, (time.time() - age,) * 2)
    gone = sorted(name for name, (_, goes) in cases.items() if goes)
    assert store.sweep_litter() == gone
    assert sorted(os.listdir(store.root / "_tmp")) == sorted(set(cases) - set(gone))


def test_a_writer_whose_staging_was_swept_fails_and_publishes_nothing(store: Store) -> None:
    with pytest.raises(OSError), store.commit(KEY, "score", {}, {}, {}, {}) as folder:
        (folder / "a").write_bytes(b"a")
        store.sweep_litter(older_than=-1)
    assert not store.has(KEY)


def test_only_plain_files_are_payloads(store: Store, tmp_path: Path) -> None:
    def subfolder(folder: Path) -> None:
        (folder / "sub").mkdir()

    def link(folder: Path) -> None:
        (folder / "link").symlink_to(tmp_path)

    def own_manifest(folder: Path) -> None:
        (folder / "manifest.json").write_text("{}")

    for spoil in (subfolder, link, own_manifest):
        with pytest.raises(StorageError, match="plain files"), store.commit(KEY, "s", {}, {}, {}, {}) as folder:
            spoil(folder)
        assert not store.has(KEY)
