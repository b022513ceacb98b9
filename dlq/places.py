"""Where things are: the store a command means, and the sweep in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlq.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.plan import Plan
    from storage.artifacts import Store
    from storage.sweeps import Sweep

DEFAULT = "runs"


def open_store(option: str | None, grid: str | None = None, create: bool = False) -> Store:
    """The store of --store or DLQ_STORE, else the grid's, else 'runs' in the current directory.

    Raises StorageError when it cannot be used, UsageError when it is not there.
    """
    from pathlib import Path

    from storage.artifacts import Store

    root = Path(option or grid or DEFAULT).expanduser()
    if not create and not (root / "store.json").exists() and not root.is_file():
        hint = "`dlq submit --grid grid.yaml` makes one; --store or DLQ_STORE names another"
        raise UsageError(f"there is no store at {root}", hint)
    return Store(root, create=create)


def store_if_there(option: str | None, grid: str | None) -> Store | None:
    """The store, or None when nobody has made it yet."""
    from pathlib import Path

    root = Path(option or grid or DEFAULT).expanduser()
    return open_store(option, grid) if (root / "store.json").exists() else None


def find_sweep(store: Store, wanted: str | None) -> Sweep:
    """The sweep whose id begins with `wanted`, or the one submitted last. Raises UsageError."""
    from storage.sweeps import sweeps

    known = sweeps(store)
    if not known:
        raise UsageError(f"there is no sweep in {store.root} yet", "`dlq submit --grid grid.yaml` starts one")
    if wanted is None:
        return known[-1]
    found = [sweep for sweep in known if sweep.id.startswith(wanted)]
    if len(found) != 1:
        what = "is not unique" if found else "is unknown"
        raise UsageError(f"sweep {wanted!r} {what} in {store.root}", "`dlq ls sweeps` lists them")
    return found[0]


def query_sweep(store: Store, sql: str, sweep: str | None = None, everything: bool = False) -> pa.Table:
    """Rows of one SELECT over what a sweep plans (the latest by default), or over everything in the store.

    Sweeps share artifacts, so rows of several sweeps cannot be told apart by their columns. Raises UsageError for
    an unknown sweep or for both choices, QueryError, QueryRefused, StorageError.
    """
    from storage.warehouse import query

    if everything:
        if sweep is not None:
            raise UsageError("--sweep and --all exclude each other")
        return query(store, sql)
    found = find_sweep(store, sweep)
    return query(store, sql, set(found.plan()["tasks"]), found.id)


def committed(store: Store | None, key: str) -> bool:
    """Whether an artifact is there. Quick: damage is found by hash when the artifact is used."""
    return store is not None and (store.path(key) / "manifest.json").is_file()


def read_plan(path: str) -> tuple[Plan, str]:
    """The plan of a grid file, and its text. Raises GridError."""
    from pathlib import Path

    from pipeline.plan import make_plan

    plan = make_plan(path)
    return plan, Path(path).read_text(encoding="utf-8")
