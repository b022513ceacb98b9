"""Tasks as calls of long-lived Ray actors: one call in flight per actor, all fan-out here in the driver.

An actor is created when its slot first gets work and kept; when it dies its call is reported as lost and the next
task gets a new actor. Ray's own retries are off, so that every attempt is counted by the scheduler. When pools
together ask for more than the cluster has, idle actors of one pool make room for another. Does not protect
against a task that runs for ever: stop the driver; what is committed stays.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.executor import Outcome, Slot
from pipeline.resources import Pool
from pipeline.tasks import Task
from workers.cluster import ClusterError

POLL_SECONDS = 0.5
START_SECONDS = 180.0


class Worker:
    """The actor. Heavy imports and the store come with the first call: a failing __init__ would be final."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._store: Any = None
        self._memory: Any = None

    def ping(self) -> bool:
        """Answers as soon as the actor has a place."""
        return True

    def attempt(self, task: Task, number: int) -> Outcome:
        """One attempt at one task."""
        from storage.artifacts import Store
        from workers import units
        from workers.loading import Memory

        if self._store is None:
            self._store, self._memory = Store(self._root), Memory()
        return units.attempt(task, number, self._store, self._memory)


@dataclass
class _Seat:
    """A slot and the actor that sits in it."""

    name: str
    pool: Pool
    actor: Any = None
    alive: Any = None
    since: float = 0.0
    affinity: str = ""
    call: Any = None
    task: Task | None = None
    attempt: int = 0


class RayExecutor:
    """Runs tasks on the pools of a connected Ray. Raises ClusterError when one actor of a pool fits nowhere."""

    def __init__(self, ray: Any, root: str, pools: Sequence[Pool]) -> None:
        self._ray, self._root = ray, root
        self._total = _Amount.of(ray.cluster_resources())
        nodes = [_Amount.of(node["Resources"]) for node in ray.nodes() if node["Alive"]]
        for pool in pools:
            if not any(_places(pool, node) for node in nodes):
                raise ClusterError(
                    f"an actor for {', '.join(sorted(pool.kinds))} needs {pool.cpus:g} CPUs, {pool.gpus:g} GPUs, "
                    f"the cluster has {self._total.cpus:g} and {self._total.gpus:g}: see `resources:` in the grid"
                )
        self._seats = [
            _Seat(f"{p}-{i}", pool)
            for p, pool in enumerate(pools)
            for i in range(min(pool.size, sum(_places(pool, node) for node in nodes)))
        ]

    def idle(self) -> Sequence[Slot]:
        """Free seats that fit beside the busy ones, those with a living actor first."""
        room = self._total
        for seat in self._seats:
            if seat.task:
                room = room.minus(_need(seat.pool))
        free = [s for s in self._seats if not s.task and _need(s.pool).fits(room)]
        return [Slot(s.name, s.pool.kinds, s.affinity) for s in sorted(free, key=lambda s: s.actor is None)]

    def submit(self, slot: Slot, task: Task, attempt: int) -> None:
        """Send the task to the slot's actor, which is created first if need be."""
        seat = next(s for s in self._seats if s.name == slot.name)
        if seat.actor is None:
            self._make_room(seat)
            self._create(seat)
        seat.task, seat.attempt, seat.affinity = task, attempt, task.affinity
        seat.call = seat.actor.attempt.remote(task, attempt)

    def _make_room(self, newcomer: _Seat) -> None:
        """Retire idle actors until a new one fits beside the busy ones."""
        need = _need(newcomer.pool)
        for other in self._seats:
            held = self._total
            for seat in self._seats:
                if seat.actor is not None:
                    held = held.minus(_need(seat.pool))
            if need.fits(held):
                return
            if other.actor is not None and other.task is None:
                self._retire(other)

    def _create(self, seat: _Seat) -> None:
        options = {"num_cpus": seat.pool.cpus, "num_gpus": seat.pool.gpus, "max_restarts": 0}
        actor = self._ray.remote(Worker).options(**options)
        seat.actor = actor.remote(self._root)
        seat.alive, seat.since = seat.actor.ping.remote(), time.monotonic()

    def _retire(self, seat: _Seat) -> None:
        if seat.actor is not None:
            self._ray.kill(seat.actor)
        seat.actor = seat.alive = None
        seat.affinity = ""

    def wait(self) -> Sequence[Outcome]:
        """What ended since the last call, after at most half a second."""
        busy = {seat.call: seat for seat in self._seats if seat.task}
        if not busy:
            return []
        ended, _ = self._ray.wait(list(busy), num_returns=len(busy), timeout=0)
        if not ended:
            ended, _ = self._ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
        return [self._collect(busy[call]) for call in ended] + self._never_started()

    def _collect(self, seat: _Seat) -> Outcome:
        task, call = seat.task, seat.call
        seat.task = seat.call = None
        assert task is not None
        try:
            outcome: Outcome = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._retire(seat)
            return Outcome(task.key, seat.attempt, "lost", _gist(error), trace=str(error)[-4000:])
        return outcome

    def _never_started(self) -> list[Outcome]:
        """Actors that found no place in time; their calls would wait for ever.

        Where others of the pool work, somebody else holds the room: the seat is given up, the task goes on.
        """
        outcomes = []
        for seat in [s for s in self._seats if s.task and s.alive]:
            if self._ray.wait([seat.alive], timeout=0)[0]:
                seat.alive = None
            elif time.monotonic() - seat.since > START_SECONDS and seat.task:
                error = (
                    f"no actor with {seat.pool.cpus:g} CPUs and {seat.pool.gpus:g} GPUs within {START_SECONDS:g} s"
                )
                outcomes.append(Outcome(seat.task.key, seat.attempt, "lost", error))
                seat.task = seat.call = None
                self._retire(seat)
                if any(s.actor and s.pool is seat.pool for s in self._seats):
                    self._seats.remove(seat)
        return outcomes

    def close(self) -> None:
        """Let all actors go."""
        for seat in self._seats:
            self._retire(seat)


def _gist(error: Exception) -> str:
    """One line of a Ray error: what kind, and its last line, which is the cause where Ray knows one."""
    lines = [line.strip() for line in re.sub("\x1b\\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


@dataclass(frozen=True)
class _Amount:
    cpus: float
    gpus: float

    @classmethod
    def of(cls, resources: dict[str, float]) -> _Amount:
        return cls(resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def fits(self, room: _Amount) -> bool:
        return self.cpus <= room.cpus + 1e-9 and self.gpus <= room.gpus + 1e-9

    def minus(self, other: _Amount) -> _Amount:
        return _Amount(self.cpus - other.cpus, self.gpus - other.gpus)


def _places(pool: Pool, node: _Amount) -> int:
    """How many actors of a pool one node holds. A fraction of a GPU cannot be put together from two cards."""
    by_cpu = int((node.cpus + 1e-9) / pool.cpus)
    if not pool.gpus:
        return by_cpu
    per_card = int((1 + 1e-9) / pool.gpus)
    by_gpu = int(node.gpus) * per_card if per_card else int((node.gpus + 1e-9) / pool.gpus)
    return min(by_cpu, by_gpu)


def _need(pool: Pool) -> _Amount:
    return _Amount(pool.cpus, pool.gpus)
