"""`dlq resume`: go on with a sweep from its stored grid."""

from __future__ import annotations

from cli.common import Answer, StoreOption, SweepArgument, verb
from cli.submit import AddressOption, LocalOption, YesOption, refuse_both, run_plan
from dlq.errors import UsageError
from dlq.places import find_sweep, open_store, read_plan


@verb
def command(
    sweep: SweepArgument = None,
    store: StoreOption = None,
    address: AddressOption = None,
    local: LocalOption = False,
    yes: YesOption = False,
) -> Answer:
    """Go on with a sweep that was interrupted, killed, or has failed cells. Nothing of the old run is needed."""
    refuse_both(local, address)
    opened = open_store(store)
    found = find_sweep(opened, sweep)
    text = found.grid()  # checks its hash
    plan, _ = read_plan(str(found.path / "grid.yaml"))
    if plan.id != found.id:
        why = f"the grid of sweep {found.id} now means sweep {plan.id}: model, data or dlq changed since"
        raise UsageError(why, f"`dlq submit --grid {found.path / 'grid.yaml'}` runs that one")
    return run_plan(plan, text, opened, local, address, yes)
