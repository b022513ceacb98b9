"""Space comes back; nothing that a plan needs goes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Dlq = Callable[..., Any]
Finished = tuple[Path, Path]


def test_gc_keeps_what_is_planned(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    from storage.artifacts import Store

    shutil.copytree(finished[1], tmp_path / "store")
    store = Store("store")
    kept = set(store.keys())
    with store.commit("ab" * 16, "score", {}, {}, {}, {}) as folder:
        (folder / "orphan").write_bytes(b"x" * 1000)
    young = dlq("gc", "--store", "store", "--json").json["data"]
    assert young["items"] == []
    dry = dlq("gc", "--store", "store", "--older-than", "0", "--json").json["data"]
    assert [item["what"] for item in dry["items"]] == ["unplanned artifact"]
    assert dry["bytes"] > 1000
    assert set(store.keys()) == kept | {"ab" * 16}
    assert dlq("gc", "--store", "store", "--older-than", "0", "--apply").code == 0
    assert set(store.keys()) == kept
    dlq("gc", "--store", "store", "--older-than", "0", "--apply", "--statistics")
    assert len(set(store.keys())) == len(kept) - 3
    again = dlq("submit", "--grid", finished[0], "--store", "store", "--local", "--json").json["data"]["summary"]
    assert again["computed"] == 0


def test_a_sweep_that_runs_elsewhere_stops_it(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    """The refusal names the file, in case the other machine is gone; after a while it is taken to be gone."""
    from storage.manifest import seal

    shutil.copytree(finished[1], tmp_path / "store")
    (sweep,) = (tmp_path / "store" / "sweeps").iterdir()
    note = sweep / "driver.json"
    note.write_bytes(seal({"host": "elsewhere", "pid": 7, "born": "", "since": "2026-01-01T00:00:00+00:00"}))
    told = dlq("gc", "--store", "store")
    assert told.code == 2
    assert "elsewhere pid 7" in told.complaint and f"store/sweeps/{sweep.name}/driver.json" in told.complaint
    assert dlq("status", "--store", "store", "--json").json["data"]["state"] == "running"
    long_ago = time.time() - 3600
    os.utime(note, (long_ago, long_ago))
    assert dlq("gc", "--store", "store").code == 0
    assert dlq("status", "--store", "store", "--json").json["data"]["state"] == "done"
