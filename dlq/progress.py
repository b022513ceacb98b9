"""Hearing how a run goes: the listener that says nothing, and the one that writes lines to stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dlq.text import clean, shorten

if TYPE_CHECKING:
    from pipeline.executor import Outcome
    from pipeline.scheduler import Scheduler
    from pipeline.tasks import Task

SECONDS_BETWEEN_LINES = 10.0


class Silent:
    """A listener (`workers.sweep.Listener`) that says nothing; the base of those that do."""

    def begin(self, scheduler: Scheduler) -> None:
        """Nothing."""

    def start(self, task: Task, attempt: int) -> None:
        """Nothing."""

    def end(self, task: Task, outcome: Outcome, scheduler: Scheduler) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Tell the user something that is no progress."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def trouble(task: Task, outcome: Outcome) -> str:
    """A line about an attempt that went wrong; '' for one that did not."""
    if outcome.status == "done":
        return ""
    verdict = {"lost": "attempt lost", "failed": "failed", "fatal": "stopping"}[outcome.status]
    return f"{verdict}: {clean(task.describe())}: {shorten(outcome.error, 160)}"


class Lines(Silent):
    """At most one line every ten seconds, and one for whatever goes wrong."""

    def __init__(self, pause: float = SECONDS_BETWEEN_LINES) -> None:
        self._pause, self._said, self._done, self._todo = pause, 0.0, 0, 0
        self._file = sys.stderr  # as it is now: libraries replace it for a while, to be quiet

    def begin(self, scheduler: Scheduler) -> None:
        """Note how much there is to do."""
        self._todo = len(scheduler.state) - len(scheduler.reused)
        self._said = time.monotonic()

    def end(self, task: Task, outcome: Outcome, scheduler: Scheduler) -> None:
        """Count, and say so now and then."""
        self._done += outcome.status == "done"
        bad, now = trouble(task, outcome), time.monotonic()
        if bad:
            self.say(bad)
        if now - self._said >= self._pause:
            self._said = now
            self.say(f"{self._done}/{self._todo} done, last: {clean(task.describe())}")

    def say(self, line: str) -> None:
        print(line, file=self._file, flush=True)
