"""`dlq status`: how far a sweep is, from the store alone."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import Answer, StoreOption, SweepArgument, verb
from cli.render import Part, Table
from cli.tables import count_table
from dlq.places import find_sweep, open_store
from dlq.standing import Standing, standing
from dlq.text import shorten

if TYPE_CHECKING:
    from storage.artifacts import Store
    from storage.sweeps import Sweep

SECONDS = 2.0
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until the sweep stops running.")]


@verb
def command(sweep: SweepArgument = None, store: StoreOption = None, watch: WatchOption = False) -> Answer:
    """Show what is done, running, failed and left of a sweep. Works while it runs and after it died."""
    opened = open_store(store)
    found = find_sweep(opened, sweep)
    now = _watch(found, opened) if watch else standing(found, opened)
    return Answer({**vars(now), "todo": now.todo}, parts(now))


def parts(now: Standing) -> list[Part]:
    """A standing for people."""
    head = f"sweep {now.sweep} ({now.name}): {now.state}"
    if now.driver:
        head += f" by {now.driver}"
    if now.left_seconds is not None:
        head += f", about {_duration(now.left_seconds)} left"
    full = sum(done == of for done, of in now.cells.values())
    lines: list[Part] = [
        head,
        f"{full} of {len(now.cells)} cells complete; last event: {now.last_event[:19] or 'none'}",
    ]
    lines.append(count_table(now.counts))
    if now.failed:
        rows = [[key[:12], shorten(error, 150)] for key, error in now.failed.items()]
        lines.append(Table(("task", "error"), rows, "given up"))
    if now.state in ("interrupted", "failed", "planned"):
        lines.append(f"next: dlq resume {now.sweep}")
    return lines


def _watch(sweep: Sweep, store: Store) -> Standing:
    """Show one line whenever something changed, until nobody drives the sweep any more."""
    seen = ""
    while True:
        now = standing(sweep, store)
        done = sum(count.done for count in now.counts)
        left = f", about {_duration(now.left_seconds)} left" if now.left_seconds is not None else ""
        line = f"{now.state}: {done} tasks done, {now.todo} to do, {len(now.failed)} failed"
        if line != seen:
            print(line + left, file=sys.stderr, flush=True)
            seen = line
        if not now.driver:
            return now
        time.sleep(SECONDS)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
