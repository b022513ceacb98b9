"""The in-process executor: one task at a time, here. For tests, debugging and machines without Ray."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.executor import Outcome, Slot
from pipeline.resources import ROLE_OF
from pipeline.tasks import Task
from storage.artifacts import Store
from workers.loading import Memory
from workers.units import attempt


class LocalExecutor:
    """Runs in `wait()` what `submit()` was given."""

    def __init__(self, store: Store) -> None:
        self._store, self._memory = store, Memory()
        self._task: tuple[Task, int] | None = None
        self._affinity = ""

    def idle(self) -> Sequence[Slot]:
        """The one slot, unless a task waits to be run."""
        return [] if self._task else [Slot("local", frozenset(ROLE_OF), self._affinity)]

    def submit(self, slot: Slot, task: Task, attempt: int) -> None:
        """Keep the task for `wait`."""
        self._task, self._affinity = (task, attempt), task.affinity

    def wait(self) -> Sequence[Outcome]:
        """Run the task."""
        if self._task is None:
            return []
        (task, number), self._task = self._task, None
        return [attempt(task, number, self._store, self._memory)]

    def close(self) -> None:
        """Drop the model in memory."""
        self._memory = Memory()
