"""Ray and the in-process executor, one replica and two: the same samples and scores, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.plan import make_plan
from pipeline.resources import Pool, Resources, RoleResources, pools
from storage.artifacts import Store
from workers.cluster import ClusterError, start
from workers.ray_executor import RayExecutor, _Amount, _places
from workers.sweep import run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.ray]
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One embedded cluster with two CPUs for this module."""
    connected = start(None, 2)
    yield connected
    connected.shutdown()


@pytest.mark.parametrize("replicas", [1, 2])
def test_ray_equals_in_process(
    ray: Any,
    tools: SimpleNamespace,
    grid_file: Callable[..., Path],
    tmp_path: Path,
    undisturbed: Rows,
    replicas: int,
) -> None:
    role = {"replicas": replicas}
    grid = grid_file(resources={"calibrate": role, "quantize": role, "evaluate": role})
    plan, store = make_plan(str(grid)), Store(tmp_path / "store")
    listener = tools.Silent()
    ray_pools = pools(plan.grid.resources)
    summary = run_sweep(
        plan, grid.read_text(), store, lambda: RayExecutor(ray, str(store.root), ray_pools), listener
    )
    assert not summary.failures
    assert tools.contents(store.root) == undisturbed
    workers = {a.manifest.pid for a in store.artifacts()}
    assert len(workers) == replicas


def test_pools_larger_than_the_cluster_take_turns(
    ray: Any, tools: SimpleNamespace, grid_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Two roles of two CPUs each on a cluster that has room for one of them at a time."""
    big, other = {"replicas": 1, "cpus": 2}, {"replicas": 1, "cpus": 1.5}
    methods = [{"method": "gptq", "wbits": 2, "group_size": 32}]
    grid = grid_file(resources={"calibrate": big, "quantize": big, "evaluate": other}, methods=methods)
    plan, store = make_plan(str(grid)), Store(tmp_path / "store")
    found = pools(plan.grid.resources)
    assert len(found) == 2
    summary = run_sweep(
        plan, grid.read_text(), store, lambda: RayExecutor(ray, str(store.root), found), tools.Silent()
    )
    assert (summary.failures, summary.pending) == ([], 0)


def test_an_actor_that_fits_nowhere_is_refused_at_once(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"needs 1 CPUs, 8 GPUs, the cluster has"):
        RayExecutor(ray, str(tmp_path), [Pool(1, 8, 1, frozenset({"evaluate"}))])


@pytest.mark.parametrize(
    ("gpus", "cards", "places"),
    [(1, 2, 2), (0.5, 2, 4), (0.6, 2, 2), (0.4, 1, 2), (2, 3, 1), (3, 2, 0), (0, 0, 8)],
)
def test_fractions_of_a_gpu_are_packed_per_card(gpus: float, cards: int, places: int) -> None:
    assert _places(Pool(1, gpus, 9, frozenset()), _Amount(8, cards)) == places


def test_roles_with_equal_resources_share_a_pool() -> None:
    resources = Resources(
        calibrate=RoleResources(replicas=1), quantize=RoleResources(replicas=3), evaluate=RoleResources(cpus=2)
    )
    found = pools(resources)
    assert [(p.size, p.cpus, sorted(p.kinds)) for p in found] == [
        (3, 1, ["calibrate", "quantize"]),
        (2, 2, ["evaluate", "requests", "score"]),
    ]
