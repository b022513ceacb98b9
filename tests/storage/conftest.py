"""What the storage tests share: a store, artifacts to put into it, and a reader that knows nothing of our code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import storage
from storage.artifacts import Store

REPOSITORY = Path(storage.__file__).parents[1]
WORKLOAD = Path(__file__).with_name("workload.py")
KEY = "ab" + "0" * 30


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def workload() -> ModuleType:
    """tests/storage/workload.py, which the killed processes run, imported here to finish what they left."""
    spec = importlib.util.spec_from_file_location("storage_workload", WORKLOAD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_workload() -> Callable[..., str]:
    """Run workload.py in a process of its own; returns what it prints."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(WORKLOAD), *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def whole() -> Callable[[Path], bool]:
    """Whether an artifact's directory is whole, judged from the documented format alone."""

    def judge(directory: Path) -> bool:
        manifest = json.loads((directory / "manifest.json").read_text())
        payloads = manifest["payloads"]
        return sorted(os.listdir(directory)) == sorted([*payloads, "manifest.json"]) and all(
            hashlib.sha256((directory / name).read_bytes()).hexdigest() == entry["sha256"]
            for name, entry in payloads.items()
        )

    return judge


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; skips where mounting one is not allowed."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs more rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def put(store: Store, key: str = KEY, **files: bytes) -> None:
    """Commit some payloads; `a_bin=b"..."` becomes a.bin."""
    with store.commit(key, "calibrate", {"block": 3}, {"model": "m"}, {"seconds": 1.5}, {}) as folder:
        for name, data in (files or {"a_bin": bytes(range(256)) * 40, "b_bin": b"second"}).items():
            (folder / name.replace("_", ".")).write_bytes(data)


@pytest.fixture(name="put")
def put_fixture() -> Callable[..., None]:
    return put
