"""A store that fills up: one line, exit 4, nothing half-written; with room again, resume finishes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.errors import ENVIRONMENT
from storage.artifacts import Store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs more rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_no_space_left_then_resumed(
    dlq: Callable[..., Any], grid_file: Callable[..., Path], small_disk: Path
) -> None:
    store = small_disk / "store"
    full = dlq("submit", "--grid", grid_file(), "--store", store, "--local", "--yes")
    assert full.code == ENVIRONMENT
    assert "no space left" in full.complaint
    assert "resume" in full.complaint
    assert list((store / "_tmp").iterdir()) == []
    assert all(Store(store).has(key) for key in list(Store(store).keys()))
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert dlq("resume", "--store", store, "--local").code == 0
