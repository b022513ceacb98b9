"""Space comes back; nothing that a plan needs goes."""

from __future__ import annotations

import shutil
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
