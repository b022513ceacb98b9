"""Live progress on stderr: bars on a terminal, `dlq.progress.Lines` elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from dlq.progress import Lines, Silent, trouble
from dlq.standing import KINDS
from dlq.text import shorten

if TYPE_CHECKING:
    from pipeline.executor import Outcome
    from pipeline.scheduler import Scheduler
    from pipeline.tasks import Task


def listener() -> Silent:
    """What fits stderr; to be closed."""
    return Bars() if sys.stderr.isatty() else Lines()


class Bars(Silent):
    """One bar for all, one per kind of task, and what runs now."""

    def __init__(self) -> None:
        self._live: Any = None
        self._bars: Any = None
        self._rows: dict[str, Any] = {}
        self._running: dict[str, str] = {}
        self._file = sys.stderr  # as it is now: libraries replace it for a while, to be quiet

    def begin(self, scheduler: Scheduler) -> None:
        """Put the bars up, unless there is nothing to do."""
        todo = Counter(scheduler.tasks[k].kind for k in scheduler.state if k not in scheduler.reused)
        if not todo:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=Console(file=self._file, emoji=False, highlight=False),
            transient=True,
            redirect_stdout=False,
        )
        self._rows["all"] = self._bars.add_task("all", total=sum(todo.values()), now="")
        for kind in filter(todo.__contains__, KINDS):
            self._rows[kind] = self._bars.add_task(kind, total=todo[kind], now="")
        self._bars.start()

    def start(self, task: Task, attempt: int) -> None:
        """Show what runs."""
        self._running[task.key] = shorten(task.describe(), 44)
        self._show()

    def end(self, task: Task, outcome: Outcome, scheduler: Scheduler) -> None:
        """Advance; what went wrong stays above the bars."""
        self._running.pop(task.key, None)
        self._show()
        bad = trouble(task, outcome)
        if bad:
            self.say(bad)
        if outcome.status == "done":
            self._bars.advance(self._rows["all"])
            self._bars.advance(self._rows[task.kind])

    def _show(self) -> None:
        now = next(reversed(self._running.values()), "")
        self._bars.update(self._rows["all"], now=now)

    def say(self, line: str) -> None:
        if self._bars is None:
            print(line, file=self._file, flush=True)
        else:
            self._bars.console.print(line, markup=False)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
