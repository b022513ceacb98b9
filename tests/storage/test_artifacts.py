"""The store: versions, damage of every kind, quarantine, listing and deleting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifacts import Store
from storage.errors import ArtifactMissing, StorageError
from storage.manifest import seal

KEY = "ab" + "0" * 30


def flip_first(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x01
    path.write_bytes(data)


def flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80
    path.write_bytes(data)


def cut_one(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_all(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def swap_for_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [
    flip_first,
    flip_middle,
    flip_last,
    cut_one,
    cut_half,
    cut_all,
    zero,
    lengthen,
    os.unlink,
    swap_for_directory,
]


@pytest.mark.parametrize("name", ["a.bin", "b.bin", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_set_aside_and_repaired(
    store: Store, put: Callable[..., None], name: str, damage: Callable[[Path], None]
) -> None:
    put(store)
    assert store.has(KEY)
    damage(store.path(KEY) / name)
    assert not store.has(KEY)
    assert not store.path(KEY).exists()
    ((place, reason),) = store.quarantined()
    assert place == store.root / "quarantine" / f"{KEY}-1"
    assert "JSON" in reason or name in reason
    assert json.loads((place / "reason.json").read_text())["key"] == KEY
    put(store)
    assert store.has(KEY)
    assert store.open(KEY).file("b.bin").read_bytes() == b"second"


def test_opening_a_damaged_artifact_is_refused(store: Store, put: Callable[..., None]) -> None:
    put(store)
    flip_middle(store.path(KEY) / "a.bin")
    assert store.open(KEY, verify=False).key == KEY  # only the manifest was looked at
    with pytest.raises(ArtifactMissing, match=KEY):
        store.open(KEY)
    with pytest.raises(ArtifactMissing):
        store.open(KEY)


def test_damage_after_damage_gets_a_number_each(store: Store, put: Callable[..., None]) -> None:
    for _ in range(3):
        put(store)
        flip_first(store.path(KEY) / "a.bin")
        assert not store.has(KEY)
    assert [place.name for place, _ in store.quarantined()] == [f"{KEY}-{n}" for n in (1, 2, 3)]


def test_a_whole_artifact_is_not_set_aside(store: Store, put: Callable[..., None]) -> None:
    """Somebody may have repaired the key between our check and our move."""
    put(store)
    assert store.quarantine(KEY, "seen damaged a moment ago") is None
    assert store.has(KEY)
    assert store.quarantined() == [] and os.listdir(store.root / "quarantine") == []


def test_setting_aside_what_is_gone_does_nothing(store: Store) -> None:
    assert store.quarantine(KEY, "seen damaged a moment ago") is None
    assert os.listdir(store.root / "quarantine") == []


def test_damage_that_cannot_be_set_aside_is_one_line(store: Store, put: Callable[..., None]) -> None:
    put(store)
    flip_first(store.path(KEY) / "a.bin")
    (store.root / "quarantine").write_text("not a folder")
    with pytest.raises(StorageError, match=r"a\.bin does not match its SHA-256\) and cannot be moved"):
        store.has(KEY)
    assert store.path(KEY).exists()


def test_an_artifact_under_another_key_is_damage(store: Store, put: Callable[..., None]) -> None:
    other = "cd" + "0" * 30
    put(store)
    store.path(other).parent.mkdir(parents=True)
    shutil.copytree(store.path(KEY), store.path(other))
    assert not store.has(other)
    assert store.has(KEY)
    assert "belongs to" in store.quarantined()[0][1]


def test_a_file_or_an_empty_folder_in_the_way_does_not_stop_a_commit(
    store: Store, put: Callable[..., None]
) -> None:
    store.path(KEY).parent.mkdir(parents=True)
    store.path(KEY).write_text("in the way")
    put(store)
    assert store.has(KEY)
    other = KEY[:-1] + "1"
    store.path(other).mkdir()
    put(store, other)
    assert store.has(other)


def test_listing(store: Store, put: Callable[..., None]) -> None:
    keys = [f"{n % 256:02x}" + f"{n:030x}" for n in (700, 3, 255, 259)]
    for key in keys:
        put(store, key)
    assert list(store.keys()) == sorted(keys)
    flip_last(store.path(keys[0]) / "manifest.json")
    found = {artifact.key: artifact for artifact in store.artifacts()}
    assert sorted(found) == sorted(keys[1:])
    assert found[keys[1]].manifest.size == 256 * 40 + 6
    assert len(store.quarantined()) == 1


def test_deleting(store: Store, put: Callable[..., None]) -> None:
    put(store)
    assert store.delete(KEY)
    assert not store.delete(KEY)
    assert not store.has(KEY) and list(store.keys()) == []
    assert not os.listdir(store.root / "_tmp") and store.quarantined() == []


def test_a_payload_that_is_not_listed_is_not_given(store: Store, put: Callable[..., None]) -> None:
    put(store)
    (store.path(KEY) / "later").write_text("not ours")
    with pytest.raises(StorageError, match=r"a\.bin, b\.bin"):
        store.open(KEY).file("later")


@pytest.mark.parametrize("key", ["", "../../etc", "AB" + "0" * 30, "ab", "g" * 32, "a" * 65, "ab" * 16 + "\n"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StorageError, match="not an artifact key"):
        store.has(key)


def test_tables_must_be_known_and_there(store: Store) -> None:
    with (
        pytest.raises(StorageError, match="unknown table 'scorez'"),
        store.commit(KEY, "score", {}, {}, {}, {"scorez": "a"}) as folder,
    ):
        (folder / "a").write_bytes(b"")
    with (
        pytest.raises(StorageError, match="not among the payloads"),
        store.commit(KEY, "score", {}, {}, {}, {"scores": "b"}),
    ):
        pass
    assert not store.has(KEY)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (seal({"format": "dlq-store", "version": 2}), "version 2"),
        (seal({"format": "dlq-store", "version": 0}), "version 0"),
        (seal({"format": "other", "version": 1}), "another format"),
        (b'{"format": "dlq-store", "version": 1}', "no digest"),
        (seal({"format": "dlq-store", "version": 1})[:-4], "torn"),
        (b"", "torn"),
    ],
)
def test_a_foreign_store_is_refused(tmp_path: Path, label: bytes, message: str) -> None:
    (tmp_path / "store.json").write_bytes(label)
    with pytest.raises(StorageError, match=message) as caught:
        Store(tmp_path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["store.json"]


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        Store(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no store"):
        Store(tmp_path / "absent", create=False)
    assert os.listdir(tmp_path) == []
    Store(tmp_path / "made")
    Store(tmp_path / "made", create=False)


def test_a_file_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot use"):
        Store(tmp_path / "file")


def test_the_store_loads_nothing_heavy() -> None:
    heavy = "{'pyarrow', 'duckdb', 'torch', 'numpy'}"
    program = f"import sys, storage.artifacts, storage.sweeps; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
