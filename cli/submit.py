"""`dlq submit`: run what is missing of a grid and print the result table."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import Answer, GridOption, StoreOption, say, verb
from dlq.errors import UsageError
from dlq.places import open_store, read_plan
from dlq.standing import counts_of_plan

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from storage.artifacts import Store

MANY_TASKS = 200  # from here on a person is asked first

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        help="Ray cluster to use: auto, host:port or ray://host:port (default: start one).",
        show_default=False,
    ),
]
LocalOption = Annotated[
    bool, typer.Option("--local", help="Run in this process, one task at a time, without Ray.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large sweep.")]


@verb
def command(
    grid: GridOption,
    store: StoreOption = None,
    address: AddressOption = None,
    local: LocalOption = False,
    yes: YesOption = False,
) -> Answer:
    """Run a sweep: whatever the store does not hold yet. Submitting the same grid again does no work."""
    refuse_both(local, address)
    plan, text = read_plan(grid)
    opened = open_store(store, plan.grid.store, create=True)
    return run_plan(plan, text, opened, local, address, yes)


def refuse_both(local: bool, address: str | None) -> None:
    """Raise UsageError for two executors at once."""
    if local and address:
        raise UsageError("--local and --address exclude each other")


def run_plan(plan: Plan, text: str, store: Store, local: bool, address: str | None, yes: bool) -> Answer:
    """Run a plan and answer with its results."""
    from cli.ending import problem_of, tell
    from cli.progress import listener
    from cli.tables import text_parts
    from dlq.results import results_of
    from dlq.running import execute
    from storage.sweeps import Sweep

    counts = counts_of_plan(plan, store)
    todo, done = sum(c.todo for c in counts), sum(c.done for c in counts)
    say(
        f"sweep {plan.id} ({plan.grid.name}) in {store.root}: "
        f"{len(plan.cells)} cells x {len(plan.task_plans)} tasks, {todo} tasks to do, {done} reused"
    )
    _confirm(todo, yes)
    with contextlib.closing(listener()) as hears:
        ending = execute(plan, text, store, hears, local, address)
    tell(ending)
    results = results_of(Sweep(store.root, plan.id), store)
    data = {"sweep": plan.id, "store": store.root, "summary": ending.summary, "results": results}
    return Answer(data, text_parts(results) if results.rows else (), problem_of(ending))


def _confirm(todo: int, yes: bool) -> None:
    if yes or todo <= MANY_TASKS or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not typer.confirm(f"Run {todo} tasks?", err=True):
        raise UsageError("nothing was started", "--yes does not ask")
