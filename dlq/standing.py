"""How far a sweep is, read from the store alone: works while it runs, after a crash, and from elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dlq.places import committed

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from storage.artifacts import Store
    from storage.sweeps import Sweep

KINDS = ("calibrate", "quantize", "requests", "evaluate", "score")


@dataclass(frozen=True)
class Count:
    """Tasks of one kind. `spare` are not committed and not needed, since all that uses them is."""

    kind: str
    total: int
    done: int
    todo: int
    spare: int = 0


def counts_of_plan(plan: Plan, store: Store | None) -> list[Count]:
    """What a run of this plan would find and do."""
    from pipeline.scheduler import Scheduler, State

    scheduler = Scheduler(plan.tasks, plan.targets(), lambda key: committed(store, key))
    totals = Counter(task.kind for task in plan.tasks.values())
    found = Counter((plan.tasks[key].kind, state) for key, state in scheduler.state.items())
    result = []
    for kind in filter(totals.__contains__, KINDS):
        done, todo = found[kind, State.DONE], found[kind, State.WAITING]
        result.append(Count(kind, totals[kind], done, todo, totals[kind] - done - todo))
    return result


@dataclass
class Standing:
    """Progress of one sweep. failed: key -> last error of tasks that are given up and not done since."""

    sweep: str
    name: str
    counts: list[Count]
    cells: dict[str, tuple[int, int]]
    failed: dict[str, str]
    running: dict[str, str] = field(default_factory=dict)
    driver: str = ""
    state: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    left_seconds: float | None = None
    last_event: str = ""

    @property
    def todo(self) -> int:
        """Tasks that are still to be done."""
        return sum(count.todo for count in self.counts)


def standing(sweep: Sweep, store: Store) -> Standing:
    """Read how far a sweep is. Raises StorageError when its plan is damaged."""
    plan = sweep.plan()
    kinds: dict[str, str] = plan["tasks"]
    done = {key for key in kinds if committed(store, key)}
    finished = all(key in done for key, kind in kinds.items() if kind != "calibrate")
    counts = []
    for kind in KINDS:
        keys = [key for key in kinds if kinds[key] == kind]
        missing = sum(key not in done for key in keys)
        spare = missing if kind == "calibrate" and finished else 0
        counts.append(Count(kind, len(keys), len(keys) - missing, missing - spare, spare))
    cells: dict[str, tuple[int, int]] = {}
    for cell, _, key in plan["scores"]:
        have, of = cells.get(cell, (0, 0))
        cells[cell] = (have + (key in done), of + 1)
    result = Standing(sweep.id, plan["name"], counts, cells, {})
    _read_events(sweep, done, kinds, result)
    return result


def _read_events(sweep: Sweep, done: set[str], kinds: dict[str, str], result: Standing) -> None:
    holder = sweep.driver()
    result.driver = f"{holder.host} pid {holder.pid}" if holder else ""
    ended = 0
    for event in sweep.events():
        result.last_event = str(event.get("time", ""))
        name, key = event.get("event"), str(event.get("key", ""))
        if name == "run" and "started_at" in event:
            result.run, ended = dict(event), 0
            result.running.clear()
            result.failed.clear()  # a new run tries them again
        elif name == "run":
            result.run.update(event)
        elif name == "start" and key in kinds:
            result.running[key] = kinds[key]
            result.failed.pop(key, None)
        elif name == "end" and key in kinds:
            ended += 1
            result.running.pop(key, None)
            if event.get("status") != "done" and key not in done:
                result.failed[key] = str(event.get("error", ""))
    _judge(result, ended)


def _judge(result: Standing, ended: int) -> None:
    """The sweep's state in one word, and the time left if it runs."""
    if not result.driver:
        result.running.clear()
    if result.driver:
        result.state = "running"
        started = _time(result.run.get("started_at"))
        if ended and started:
            result.left_seconds = (datetime.now(UTC) - started).total_seconds() / ended * result.todo
    elif result.todo == 0:
        result.state = "done"
    elif result.failed:
        result.state = "failed"
    else:
        result.state = "interrupted" if result.run else "planned"


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
