"""Real SIGKILL at every step of every write; then the next run must end where an undisturbed one does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from storage.artifacts import Store
from storage.crash import POINTS
from storage.sweeps import Sweep

pytestmark = pytest.mark.chaos


@pytest.fixture
def killed(tmp_path: Path, run_workload: Callable[..., str]) -> list[dict[str, Any]]:
    """Every store a killed run left behind."""
    found: list[dict[str, Any]] = json.loads(run_workload("kill", str(tmp_path)))
    return found


def contents(root: Path) -> dict[str, Any]:
    """What must not depend on kills: everything but times, processes and repeated events."""
    found: dict[str, Any] = {}
    for folder in ("objects", "sweeps", "_tmp"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.name != "events.jsonl":
                found[str(path.relative_to(root))] = stable(path)
    lines = (root / "sweeps/night/events.jsonl").read_text().splitlines()
    found["done"] = sorted({json.loads(line)["key"] for line in lines})
    return found


def stable(path: Path) -> object:
    if path.name != "manifest.json":
        return path.read_bytes()
    manifest = json.loads(path.read_text())
    return {name: value for name, value in manifest.items() if name not in ("created_at", "pid", "digest")}


def test_every_place_is_on_the_list() -> None:
    source = Path(__file__).parents[2] / "storage"
    used = {name for path in source.glob("*.py") for name in re.findall(r'\bpoint\("(.+?)"\)', path.read_text())}
    assert used == set(POINTS)
    table = (source.parent / "docs/design/commits.md").read_text()
    assert all(f"`{name}`" in table for name in POINTS)


def test_killed_anywhere_the_next_run_completes(
    killed: list[dict[str, Any]], tmp_path: Path, workload: ModuleType, whole: Callable[[Path], bool]
) -> None:
    undisturbed = tmp_path / "undisturbed"
    workload.prepare(undisturbed)
    workload.run(undisturbed)
    wanted = contents(undisturbed)
    assert {case["point"] for case in killed} == {*POINTS, workload.MIDDLE}  # every place was reached
    assert all(case["killed"] for case in killed)
    # Three artifacts, three files of a sweep, three events, one quarantine, one deletion: each step of each.
    assert len(killed) == 3 * (6 + 1) + 3 * 2 + 3 * 2 + 2 + 1
    for case in killed:
        root = Path(case["root"])
        check_invariants(root, workload, whole)
        workload.run(root)
        assert contents(root) == wanted, case
        assert [reason for _, reason in Store(root).quarantined()] == ["codes.bin does not match its SHA-256"], (
            case
        )
        assert not os.listdir(root / "_tmp"), case


def check_invariants(root: Path, workload: ModuleType, whole: Callable[[Path], bool]) -> None:
    """What holds at any moment, also right after a kill."""
    for directory in (root / "objects").glob("*/*"):
        assert whole(directory) or directory.name == workload.DAMAGED
    for directory in (root / "quarantine").glob("*"):
        assert json.loads((directory / "reason.json").read_text())["key"] == workload.DAMAGED
    sweep = Sweep(root, "night")
    if sweep.exists:
        assert sweep.plan() == {"keys": workload.KEYS}
        assert sweep.cells().column("cell").to_pylist() == [key[:4] for key in workload.KEYS]
    assert not list((root / "sweeps").rglob("*.tmp")) and not list((root / "objects").rglob("*.tmp"))


def test_a_store_killed_while_it_is_made_can_be_made_again(tmp_path: Path, workload: ModuleType) -> None:
    for place in ("replace.written", "replace.renamed"):
        root = tmp_path / place

        def die(root: Path = root, place: str = place) -> None:
            os.environ["DLQ_CRASH_AT"] = place
            Store(root)

        _, status = os.waitpid(workload.forked(die), 0)
        assert os.WTERMSIG(status) == 9
        workload.run(root)
        assert sorted(Store(root).keys()) == sorted(workload.KEYS)
