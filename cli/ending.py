"""How a run ended, in words and as an exit code."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from cli.common import say
from cli.errors import ENVIRONMENT, FAILED_CELLS, RESUMABLE, SIGINT, Problem
from dlq.text import shorten

if TYPE_CHECKING:
    from dlq.running import Ending

SHOWN_FAILURES = 10
RESUME = "`dlq resume` goes on"


def problem_of(ending: Ending) -> Problem | None:
    """What went wrong, by the table of exit codes; None for a sweep that is complete."""
    summary = ending.summary
    if summary is None or (ending.signal and summary.pending):
        left = f", {summary.pending} tasks are left" if summary else ""
        code = SIGINT if ending.signal == signal.SIGINT else RESUMABLE
        return Problem("interrupted", f"interrupted{left}; finished work is kept", RESUME, code)
    if summary.fatal:
        return Problem("fatal", summary.fatal, RESUME, ENVIRONMENT)
    if summary.failures:
        what = f"{len(summary.failed_cells)} cells failed: {len(summary.failures)} tasks were given up"
        return Problem("cells_failed", what, "`dlq resume` tries them again", FAILED_CELLS)
    if summary.pending:
        return Problem("incomplete", f"{summary.pending} tasks are left", RESUME, RESUMABLE)
    return None


def tell(ending: Ending) -> None:
    """A few lines about the run on stderr."""
    summary = ending.summary
    if summary is None:
        return
    if summary.other_driver:
        say(f"dlq: warning: {summary.other_driver} drives this sweep too; some work is done twice, none is lost")
    again = f", {summary.retried} attempts repeated" if summary.retried else ""
    done = f"{summary.computed} tasks computed, {summary.reused} reused{again}"
    say(f"sweep {summary.sweep}: {done}, in {summary.seconds:.1f} s")
    for failure in summary.failures[:SHOWN_FAILURES]:
        say(f"failed: {shorten(failure.task, 80)}: {shorten(failure.error, 200)}")
    if len(summary.failures) > SHOWN_FAILURES:
        say(f"... and {len(summary.failures) - SHOWN_FAILURES} more; `dlq status` lists them")
