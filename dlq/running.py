"""Run a plan: pick the executor, listen to signals, and say how it ended.

Ray starts only if there is work for it, and prints to stdout whatever it is told not to; hence the redirection
for as long as it is connected.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlq.chatter import stdout_is_chatter
from dlq.errors import UsageError
from dlq.signals import Stopper

if TYPE_CHECKING:
    from dlq.progress import Silent
    from pipeline.executor import Executor
    from pipeline.plan import Plan
    from storage.artifacts import Store
    from workers.sweep import Summary

LEAST_CPUS = 2.0  # of an embedded cluster, so that two replicas pull work even on one core


@dataclass(frozen=True)
class Ending:
    """A summary, absent if the run was stopped at once, and the signal that asked it to stop, if one did."""

    summary: Summary | None
    signal: int | None


def execute(
    plan: Plan, grid_text: str, store: Store, listener: Silent, local: bool = False, address: str | None = None
) -> Ending:
    """Run what is missing of a plan. Raises ClusterError, StorageError; failures of tasks are in the summary."""
    from workers.sweep import run_sweep

    if local and address:
        raise UsageError("--local and --address exclude each other")
    stopper, clusters = Stopper(listener.say), contextlib.ExitStack()
    summary = None
    with stdout_is_chatter(), clusters, stopper:
        make = _executor_maker(plan, store, local, address, stopper, clusters)
        try:
            summary = run_sweep(
                plan, grid_text, store, make, listener, stopper, executor="local" if local else "ray"
            )
        except KeyboardInterrupt:
            stopper.received = stopper.received or signal.SIGINT
    return Ending(summary, stopper.received)


def _executor_maker(
    plan: Plan, store: Store, local: bool, address: str | None, stopper: Stopper, clusters: contextlib.ExitStack
) -> Callable[[], Executor]:
    def make_local() -> Executor:
        from workers.local import LocalExecutor

        return LocalExecutor(store)

    def make_ray() -> Executor:
        from pipeline.resources import pools
        from workers import cluster
        from workers.ray_executor import RayExecutor

        wanted = pools(plan.grid.resources)
        print(f"connecting to Ray at {address}" if address else "starting Ray on this machine", flush=True)
        ray: Any = cluster.start(address, max(LEAST_CPUS, *(pool.cpus for pool in wanted)))
        clusters.callback(ray.shutdown)
        stopper.install()  # Ray has put its own SIGTERM handler there
        return RayExecutor(ray, str(store.root), wanted)

    return make_local if local else make_ray
