"""`dlq gc`: give back space. Shows what would go; removes it only with --apply.

Roots are the plans of the store's sweeps. Nothing is removed while a sweep runs, nor what is younger than an hour:
it may belong to a sweep that another machine is about to register.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import Answer, StoreOption, verb
from cli.render import Table
from dlq.errors import UsageError
from dlq.places import committed, open_store

if TYPE_CHECKING:
    from storage.artifacts import Store

GRACE_SECONDS = 3600.0

ApplyOption = Annotated[bool, typer.Option("--apply", help="Really remove it.")]
StatisticsOption = Annotated[
    bool, typer.Option("--statistics", help="Also calibration statistics of sweeps that are complete.")
]
GraceOption = Annotated[float, typer.Option("--older-than", help="Spare artifacts younger than this, in seconds.")]


@verb
def command(
    store: StoreOption = None,
    apply: ApplyOption = False,
    statistics: StatisticsOption = False,
    older_than: GraceOption = GRACE_SECONDS,
) -> Answer:
    """Remove what no sweep needs: unplanned artifacts, quarantined ones, litter of killed processes."""
    opened = open_store(store)
    _refuse_while_running(opened)
    rows = []
    for what, path in _found(opened, statistics, older_than):
        rows.append({"what": what, "path": str(path.relative_to(opened.root)), "bytes": _size(path)})
        if apply:
            _remove(opened, what, path)
    rows += _litter(opened, apply)
    total = sum(int(str(row["bytes"])) for row in rows)
    last = f"{'freed' if apply else 'would free'} {human(total)}" + ("" if apply else "; --apply does it")
    table = Table(("what", "path", "bytes"), [list(row.values()) for row in rows], right=frozenset({"bytes"}))
    return Answer({"applied": apply, "bytes": total, "items": rows}, [*([table] if rows else []), last])


def _refuse_while_running(store: Store) -> None:
    from storage.sweeps import sweeps

    for sweep in sweeps(store):
        holder = sweep.driver()
        if holder:
            who = f"sweep {sweep.id} is run by {holder.host} pid {holder.pid}"
            raise UsageError(f"{who}; wait until it ended, or remove {sweep.note} if you know that it has")


def _found(store: Store, statistics: bool, older_than: float) -> Iterator[tuple[str, Path]]:
    """(what, path) of everything that may go. An unreadable plan stops it: what it needs is unknown."""
    from storage.sweeps import sweeps

    plans = [sweep.plan()["tasks"] for sweep in sweeps(store)]
    planned = {key for plan in plans for key in plan}
    open_plans = [plan for plan in plans if not _complete(store, plan)]
    needed = {key for plan in open_plans for key in plan}
    spare = {key for plan in plans for key, kind in plan.items() if kind == "calibrate"} - needed
    held = store.keys()
    for key in held:
        if time.time() - store.path(key).stat().st_mtime < older_than:
            continue
        if key not in planned:
            yield "unplanned artifact", store.path(key)
        elif statistics and key in spare:
            yield "statistics", store.path(key)
    for place, _ in store.quarantined():
        yield "quarantined artifact", place


def _litter(store: Store, apply: bool) -> list[dict[str, object]]:
    """What lies in _tmp; the store itself decides which of it nobody uses any more."""
    sizes = {path.name: _size(path) for path in sorted((store.root / "_tmp").glob("*"))}
    if not apply:
        return [
            {"what": "litter, if its process is dead", "path": f"_tmp/{n}", "bytes": b} for n, b in sizes.items()
        ]
    return [{"what": "litter", "path": f"_tmp/{n}", "bytes": sizes.get(n, 0)} for n in store.sweep_litter()]


def _complete(store: Store, tasks: dict[str, str]) -> bool:
    return all(committed(store, key) for key, kind in tasks.items() if kind != "calibrate")


def _remove(store: Store, what: str, path: Path) -> None:
    if what == "quarantined artifact":
        shutil.rmtree(path, ignore_errors=True)
    else:
        store.delete(path.name)


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def human(size: float) -> str:
    """Bytes for people: '12.3 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
