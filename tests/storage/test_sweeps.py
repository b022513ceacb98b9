"""Sweeps: written whole, read strictly; events survive torn lines; the note of a driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from storage.artifacts import Store
from storage.errors import StorageError
from storage.lease import Holder
from storage.manifest import seal
from storage.process import born, host
from storage.sweeps import Sweep, sweeps

CELLS = [{"cell": "c1", "wbits": 4, "tasks": ["facts", "code"]}, {"cell": "c2", "is_baseline": True}]
PLAN = {"keys": ["k1", "k2"], "cells": {"c1": ["k1"]}}


@pytest.fixture
def sweep(store: Store) -> Sweep:
    sweep = Sweep(store.root, "night-1")
    sweep.write("models: [tiny]\n", CELLS, PLAN)
    return sweep


def test_what_is_written_is_read(store: Store, sweep: Sweep) -> None:
    assert Sweep(store.root, "night-1").plan() == PLAN
    assert sweep.grid() == "models: [tiny]\n"
    rows = sweep.cells().to_pylist()
    assert [(row["sweep"], row["cell"], row["wbits"], row["tasks"], row["is_baseline"]) for row in rows] == [
        ("night-1", "c1", 4, ["facts", "code"], None),
        ("night-1", "c2", None, None, True),
    ]
    assert sorted(os.listdir(sweep.path)) == ["cells.parquet", "grid.yaml", "plan.json"]


def test_writing_again_replaces(sweep: Sweep) -> None:
    sweep.write("models: [other]\n", CELLS[:1], {"keys": []})
    assert sweep.plan() == {"keys": []} and sweep.grid() == "models: [other]\n"
    assert len(sweep.cells()) == 1


def test_a_sweep_exists_with_its_plan(store: Store, sweep: Sweep) -> None:
    half = Sweep(store.root, "half")
    half.append("started")
    assert not half.exists
    assert [found.id for found in sweeps(store)] == ["night-1"]
    with pytest.raises(StorageError, match="there is no sweep 'half'"):
        half.plan()


@pytest.mark.parametrize("name", ["plan.json", "grid.yaml", "cells.parquet"])
@pytest.mark.parametrize("kind", ["flip", "cut", "delete"])
def test_a_damaged_sweep_says_how_to_repair_it(sweep: Sweep, name: str, kind: str) -> None:
    path = sweep.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(data if kind == "flip" else data[:-1])
    read = {"plan.json": sweep.plan, "grid.yaml": sweep.grid, "cells.parquet": sweep.cells}[name]
    with pytest.raises(StorageError, match="no sweep" if (name, kind) == ("plan.json", "delete") else "again"):
        read()
    sweep.write("models: [tiny]\n", CELLS, PLAN)
    assert read() is not None


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 101, "a\n"])
def test_names_cannot_leave_the_store(store: Store, name: str) -> None:
    with pytest.raises(StorageError, match="not a sweep id"):
        Sweep(store.root, name)


def test_events_keep_their_order_and_time(sweep: Sweep) -> None:
    for number in range(5):
        sweep.append("done", key=f"k{number}", nested={"a": [1, None, "zwei"]})
    events = list(sweep.events())
    assert [event["key"] for event in events] == ["k0", "k1", "k2", "k3", "k4"]
    assert events[0]["event"] == "done" and events[0]["nested"] == {"a": [1, None, "zwei"]}
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert times == sorted(times) and times[0].tzinfo is not None


def test_torn_lines_lose_only_themselves(sweep: Sweep) -> None:
    """Every way to tear the last line: what was before stays, what comes after is whole."""
    sweep.append("one")
    log = sweep.path / "events.jsonl"
    first = log.read_bytes()
    sweep.append("two")
    both = log.read_bytes()
    for length in range(len(first), len(both) - 1):
        log.write_bytes(both[:length])
        assert [event["event"] for event in sweep.events()][:1] == ["one"]
        sweep.append("three")
        found = [event["event"] for event in sweep.events()]
        assert found in (["one", "three"], ["one", "two", "three"])
        assert found == ["one", "three"] or length == len(both) - 1
    log.write_bytes(both + b"\0\0\0\xff\xfe\n[1]\n\n")
    assert [event["event"] for event in sweep.events()] == ["one", "two"]


def test_no_events_is_no_error(sweep: Sweep) -> None:
    assert list(sweep.events()) == [] and sweep.runs() == []


def test_an_event_must_be_json(sweep: Sweep) -> None:
    with pytest.raises(StorageError, match="plain JSON"):
        sweep.append("done", value=float("nan"))
    assert list(sweep.events()) == []


def test_runs(sweep: Sweep) -> None:
    first = sweep.start_run(name="night", executor="ray")
    second = sweep.start_run(name="night")
    sweep.append("done", key="k1")
    sweep.end_run(first, "done", tasks_done=3)
    one, two = sweep.runs()
    assert (one["run"], one["status"], one["tasks_done"], one["executor"]) == (first, "done", 3, "ray")
    assert one["sweep"] == "night-1" and one["host"] == host() and one["pid"] == os.getpid()
    assert one["finished_at"] >= one["started_at"]
    assert two["run"] == second and "status" not in two and "finished_at" not in two
    with pytest.raises(StorageError, match="no column 'exekutor'"):
        sweep.start_run(exekutor="ray")


# -- the driver's note -------------------------------------------------------------------------------------------

DRIVE = """
import sys
from pathlib import Path
from storage.sweeps import Sweep
with Sweep(Path(sys.argv[1]), "night-1").driving() as other:
    print("alone" if other is None else f"beside {other.pid}", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def driver(sweep: Sweep) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start drivers of the sweep, each in a process of its own; returns when it holds what it can."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVE, str(sweep.root)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_driver_hears_of_the_first(sweep: Sweep, driver: Callable[[], subprocess.Popen[str]]) -> None:
    first = driver()
    assert said(first) == "alone"
    found = sweep.driver()
    assert found is not None and (found.pid, found.host) == (first.pid, host())
    second = driver()
    assert said(second) == f"beside {first.pid}"
    second.communicate("\n")
    assert sweep.driver() == found  # the second one's end does not end the first one's note
    first.communicate("\n")
    assert sweep.driver() is None and not (sweep.path / "driver.json").exists()


def test_the_note_of_a_killed_driver_does_not_count(
    sweep: Sweep, driver: Callable[[], subprocess.Popen[str]]
) -> None:
    first = driver()
    assert said(first) == "alone"
    first.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # it ended, and nobody has waited for it yet
    assert (sweep.path / "driver.json").exists()
    assert sweep.driver() is None
    second = driver()
    assert said(second) == "alone"
    found = sweep.driver()
    assert found is not None and found.pid == second.pid


def note(sweep: Sweep, **fields: object) -> None:
    mine = {"host": host(), "pid": os.getpid(), "born": born(os.getpid()), "since": "2026-01-01T00:00:00+00:00"}
    (sweep.path / "driver.json").write_bytes(seal({**mine, **fields}))


def test_a_reused_process_id_is_told_apart(sweep: Sweep) -> None:
    note(sweep)
    assert sweep.driver() is not None
    note(sweep, born="1")
    assert sweep.driver() is None
    with sweep.driving() as other:
        assert other is None


def test_a_driver_elsewhere_is_believed(sweep: Sweep) -> None:
    note(sweep, host="elsewhere", pid=1)
    with sweep.driving() as other:
        assert other == Holder("elsewhere", 1, born(os.getpid()), "2026-01-01T00:00:00+00:00")
    assert (sweep.path / "driver.json").exists()


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_a_driver_elsewhere_that_fell_silent_is_not_believed(sweep: Sweep) -> None:
    note(sweep, host="elsewhere", pid=1)
    age(sweep.note, 14 * 60)
    assert sweep.driver() is not None
    age(sweep.note, 16 * 60)
    assert sweep.driver() is None
    with sweep.driving() as other:
        assert other is None
        assert json.loads(sweep.note.read_text())["pid"] == os.getpid()


def test_age_does_not_matter_where_the_process_can_be_seen(sweep: Sweep) -> None:
    with sweep.driving():
        age(sweep.note, 3600)
        assert sweep.driver() is not None


def test_every_event_refreshes_the_note_of_its_driver_only(sweep: Sweep) -> None:
    with sweep.driving():
        age(sweep.note, 3600)
        sweep.append("end", key="k1")
        assert time.time() - sweep.note.stat().st_mtime < 60
    note(sweep, host="elsewhere")
    age(sweep.note, 3600)
    sweep.append("end", key="k2")
    assert time.time() - sweep.note.stat().st_mtime > 3000


@pytest.mark.parametrize("junk", [b"", b"{}", b"\0" * 50, seal({"host": "h"})])
def test_an_unreadable_note_is_taken_over(sweep: Sweep, junk: bytes) -> None:
    (sweep.path / "driver.json").write_bytes(junk)
    with sweep.driving() as other:
        assert other is None
        assert json.loads((sweep.path / "driver.json").read_text())["pid"] == os.getpid()
    assert not (sweep.path / "driver.json").exists()


def test_the_note_goes_when_the_driver_fails(sweep: Sweep) -> None:
    with pytest.raises(RuntimeError), sweep.driving():
        raise RuntimeError
    assert not (sweep.path / "driver.json").exists()
