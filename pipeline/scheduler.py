"""Decides what runs next. Deterministic given the completions, and ignorant of Ray, files and tensors.

Invariants (held by the simulation in tests/pipeline/test_scheduler.py):
 1. a task starts only when all its inputs are done;  2. a task runs at most once at a time, at most `attempts`
times in all;  3. an outcome of any but the running attempt (late, duplicate) changes nothing, unless it says
done;  4. a failed task blocks exactly the tasks that need it;  5. the run ends, with every needed task done,
failed or blocked.
Does not protect against an executor that never reports: executors turn a dead worker into `lost`.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from pipeline.executor import Executor, Outcome, Slot
from pipeline.tasks import Task


class State(Enum):
    """Where a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


# Chains first, then what they unlock; evaluation fills the rest.
PRIORITY = {"requests": 0, "calibrate": 1, "quantize": 2, "score": 3, "evaluate": 4}


@dataclass
class Scheduler:
    """State of one sweep. `tasks` maps key -> task in plan order; `done` asks the store about one key."""

    tasks: Mapping[str, Task]
    targets: Iterable[str]
    done: Callable[[str], bool]
    attempts: int = 3
    state: dict[str, State] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    fatal: str = ""

    def __post_init__(self) -> None:
        self._flying: set[tuple[str, int]] = set()
        self._ready: list[str] = []
        self._users: dict[str, set[str]] = defaultdict(set)
        self._order = {key: rank for rank, key in enumerate(self.tasks)}
        self._admit(self.targets)

    def _admit(self, wanted: Iterable[str]) -> None:
        """Walk down from what is wanted; what the store already holds needs no inputs."""
        todo, fresh = list(wanted), []
        while todo:
            key = todo.pop()
            if key in self.state:
                continue
            if self.done(key):
                self.state[key] = State.DONE
                self.reused.add(key)
                continue
            self.state[key] = State.WAITING
            fresh.append(key)
            for needed in self.tasks[key].inputs().values():
                self._users[needed].add(key)
                todo.append(needed)
        for key in fresh:
            self._wait(key)

    def _rank(self, key: str) -> tuple[int, int]:
        return PRIORITY[self.tasks[key].kind], self._order[key]

    def _inputs_done(self, key: str) -> bool:
        return all(self.state[i] is State.DONE for i in self.tasks[key].inputs().values())

    def ready(self) -> list[str]:
        """Keys whose inputs are all done, most urgent first."""
        return list(self._ready)

    def next_for(self, slot: Slot) -> str | None:
        """What a free slot should run: the most urgent kind, and of that kind one of its own affinity first."""
        first = next((k for k in self._ready if self.tasks[k].kind in slot.kinds), None)
        if first is None:
            return None
        kind = self.tasks[first].kind
        alike = (k for k in self._ready if self.tasks[k].kind == kind)
        return next((k for k in alike if self.tasks[k].affinity == slot.affinity), first)

    def started(self, key: str) -> int:
        """Record that a ready task runs; returns the number of this attempt, from 1."""
        self._ready.remove(key)
        self.state[key] = State.RUNNING
        self.tries[key] += 1
        self._flying.add((key, self.tries[key]))
        return self.tries[key]

    def finished(self, outcome: Outcome) -> None:
        """Take in an outcome; late and duplicate ones are harmless."""
        key = outcome.key
        self._flying.discard((key, outcome.attempt))
        if outcome.status == "done":
            self._complete(key)
        elif self.state[key] is State.RUNNING and outcome.attempt == self.tries[key]:
            self.errors[key] = outcome.error
            if outcome.status == "fatal":
                self.fatal = outcome.error
            if outcome.status == "lost" and self.tries[key] < self.attempts:
                self._recheck_inputs(key)
                self._wait(key)
            else:
                self.state[key] = State.FAILED
                self._settle_users(key)

    def _recheck_inputs(self, key: str) -> None:
        """An attempt may have been lost because an input turned out damaged: that input is made again first."""
        for needed in self.tasks[key].inputs().values():
            if self.state[needed] is State.DONE and not self.done(needed):
                del self.state[needed]
                self.reused.discard(needed)
                self._admit([needed])

    def _complete(self, key: str) -> None:
        if self.state[key] is State.DONE:
            return
        if key in self._ready:  # a late success overtook the next attempt
            self._ready.remove(key)
        self.state[key] = State.DONE
        self.errors.pop(key, None)
        self._settle_users(key)

    def _wait(self, key: str) -> None:
        self.state[key] = State.WAITING
        if self._inputs_done(key):
            bisect.insort(self._ready, key, key=self._rank)

    def _settle_users(self, key: str) -> None:
        """Re-judge the tasks that need `key`, and on through those whose verdict changes."""
        todo = sorted(self._users[key])
        while todo:
            user = todo.pop()
            if self.state[user] not in (State.WAITING, State.BLOCKED) or user in self._ready:
                continue
            before = self.state[user]
            inputs = {self.state[i] for i in self.tasks[user].inputs().values()}
            if inputs & {State.FAILED, State.BLOCKED}:
                self.state[user] = State.BLOCKED
            else:
                self._wait(user)
            if self.state[user] is not before:
                todo.extend(sorted(self._users[user]))

    @property
    def running(self) -> bool:
        """Whether any attempt is in flight, also one whose task a late success has already settled."""
        return bool(self._flying)

    def count(self, state: State) -> int:
        """How many needed tasks are in a state."""
        return sum(s is state for s in self.state.values())


def drive(
    scheduler: Scheduler,
    executor: Executor,
    tell: Callable[[str, Task, int, Outcome | None], None],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Run a sweep to its end, or, once `stopping()`, until what is in flight has drained.

    `tell(event, task, attempt, outcome)` hears of every 'start' and every 'end'.
    """
    while True:
        while not (stopping() or scheduler.fatal) and (found := _match(scheduler, executor)):
            slot, key = found
            attempt = scheduler.started(key)
            tell("start", scheduler.tasks[key], attempt, None)
            executor.submit(slot, scheduler.tasks[key], attempt)
        if not scheduler.running:
            return
        for outcome in executor.wait():
            scheduler.finished(outcome)
            tell("end", scheduler.tasks[outcome.key], outcome.attempt, outcome)


def _match(scheduler: Scheduler, executor: Executor) -> tuple[Slot, str] | None:
    """A free slot and a task for it. One at a time: a slot given away may leave no room for another."""
    for slot in executor.idle():
        key = scheduler.next_for(slot)
        if key is not None:
            return slot, key
    return None
