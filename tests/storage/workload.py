"""A small sweep on a store, run by the crash and race tests in processes that are really killed.

workload.py kill <folder>           for every crash point and pass: a fresh store, killed there; prints JSON
workload.py race <folder> <rounds>  two processes commit the same key, again and again
workload.py heal <folder> <rounds>  two processes find the same damaged artifact and recompute it
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from storage.artifacts import Store
from storage.crash import POINTS, point
from storage.sweeps import Sweep
from storage.tables import write_table

KEYS = ["a1" + "0" * 30, "a1" + "1" * 30, "b2" + "0" * 30]
DAMAGED = KEYS[0]
UNWANTED = "c3" + "0" * 30
MIDDLE = "workload.middle"


def prepare(root: Path) -> None:
    """A store where one wanted artifact was damaged later and one is there that nobody wants."""
    store = Store(root)
    for key in (DAMAGED, UNWANTED):
        compute(store, key)
    payload = store.path(DAMAGED) / "codes.bin"
    data = bytearray(payload.read_bytes())
    data[5] ^= 1
    payload.write_bytes(bytes(data))


def compute(store: Store, key: str) -> None:
    """One task: two payloads, one of them a table, written in steps."""
    with store.commit(key, "score", {"task": key}, {}, {"seconds": 2.0}, {"scores": "scores.parquet"}) as folder:
        with open(folder / "codes.bin", "wb") as file:
            file.write(key.encode() * 100)
            file.flush()
            point(MIDDLE)
            file.write(key.encode() * 100)
        row = {"cell": key[:4], "task": "facts", "metric": "acc", "value": len(key) / 64}
        write_table(folder / "scores.parquet", "scores", [row])


def run(root: Path) -> None:
    """Submit, or resume: the same call."""
    store = Store(root)
    store.sweep_litter()
    sweep = Sweep(store.root, "night")
    if not sweep.exists:
        sweep.write("models: [tiny]\n", [{"cell": key[:4]} for key in KEYS], {"keys": KEYS})
    for key in sweep.plan()["keys"]:
        if not store.has(key):
            compute(store, key)
        sweep.append("done", key=key)
    store.delete(UNWANTED)


def forked(work: object, *arguments: object) -> int:
    """Run `work` in a child that shares nothing afterwards; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)  # type: ignore[operator]
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def run_and_die(root: Path, place: str) -> None:
    os.environ["DLQ_CRASH_AT"] = place
    run(root)


def kill(folder: Path) -> list[dict[str, object]]:
    """Kill a run at the first, second, ... pass of every point, until a run passes it no more."""
    template = folder / "template"
    prepare(template)
    found = []
    for name in (*POINTS, MIDDLE):
        for number in range(1, 100):
            root = folder / f"{name}-{number}"
            shutil.copytree(template, root, symlinks=True)
            _, status = os.waitpid(forked(run_and_die, root, f"{name}:{number}"), 0)
            if status == 0:
                break
            found.append({"point": name, "root": str(root), "killed": os.WTERMSIG(status) == signal.SIGKILL})
    return found


def together(barrier: tuple[int, int]) -> None:
    """Wait until the parent closes its end of the pipe."""
    reading, writing = barrier
    os.close(writing)
    os.read(reading, 1)


def compete(store: Store, key: str, mark: bytes, barrier: tuple[int, int]) -> None:
    with store.commit(key, "score", {}, {}, {}, {}) as folder:
        for name in ("one", "two", "three"):
            (folder / name).write_bytes(mark * 1000)
        together(barrier)
    if not store.has(key):
        raise AssertionError("committed, but not there")


def repair(store: Store, key: str, mark: bytes, barrier: tuple[int, int]) -> None:
    together(barrier)
    if not store.has(key):
        with store.commit(key, "score", {}, {}, {}, {}) as folder:
            for name in ("one", "two", "three"):
                (folder / name).write_bytes(mark * 1000)


def pair(store: Store, key: str, work: object) -> None:
    barrier = os.pipe()
    children = [forked(work, store, key, mark, barrier) for mark in (b"A", b"B")]
    for end in barrier:
        os.close(end)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"a competitor ended with {status}")


def race(folder: Path, rounds: int) -> None:
    store = Store(folder)
    for number in range(rounds):
        pair(store, f"{number:032x}", compete)


def heal(folder: Path, rounds: int) -> None:
    store = Store(folder)
    for number in range(rounds):
        key = f"{number:032x}"
        with store.commit(key, "score", {}, {}, {}, {}) as staged:
            (staged / "one").write_bytes(b"C" * 1000)
        (store.path(key) / "one").write_bytes(b"D" * 1000)
        pair(store, key, repair)


if __name__ == "__main__":
    mode, place = sys.argv[1], Path(sys.argv[2])
    if mode == "kill":
        print(json.dumps(kill(place)))
    else:
        {"race": race, "heal": heal}[mode](place, int(sys.argv[3]))
