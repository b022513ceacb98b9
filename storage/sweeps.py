"""What a sweep is: its grid, its frozen plan, its cells, and a log of what happened.

    sweeps/<id>/grid.yaml       as submitted
    sweeps/<id>/cells.parquet   one row per cell
    sweeps/<id>/plan.json       written last, a sweep exists when this does; sealed, with hashes of the other two
    sweeps/<id>/events.jsonl    append-only; informs people and the runs table, never decides what is done
    sweeps/<id>/driver.json     who drives it (advisory)

Results are not here: they are artifacts, shared by all sweeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import lease
from storage.artifacts import Store
from storage.commit import append_line, atomic_write_bytes, full_disk_is_clear
from storage.errors import StorageError
from storage.manifest import Damaged, plain, read_bytes, seal, unseal
from storage.process import host
from storage.schemas import RUNS

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Sweep:
    """One sweep in a store; it need not exist yet."""

    root: Path
    id: str

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise StorageError(f"not a sweep id: {self.id!r} (letters, digits, '.', '_' and '-')")

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.root / "sweeps" / self.id

    @property
    def exists(self) -> bool:
        """True once its plan is written."""
        return (self.path / "plan.json").exists()

    def write(self, grid: str, cells: Iterable[Mapping[str, Any]], plan: Mapping[str, Any]) -> None:
        """Create or replace the sweep. `cells` are rows of the cells table (`sweep` is filled in); `plan` is JSON.

        Killed half-way, the sweep does not exist, or is found not to match its plan; writing it again repairs it.
        """
        from storage.tables import table_bytes  # pyarrow is slow to load, and most readers of a sweep need none

        files = {
            "grid.yaml": grid.encode(),
            "cells.parquet": table_bytes("cells", [{**row, "sweep": self.id} for row in cells]),
        }
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        files["plan.json"] = seal({"plan": plain(plan, "plan"), "files": hashes})
        for name, data in files.items():
            atomic_write_bytes(self.root, self.path / name, data)

    def plan(self) -> dict[str, Any]:
        """The plan. Raises StorageError if the sweep does not exist or its plan is damaged."""
        plan: dict[str, Any] = self._sealed()["plan"]
        return plan

    def grid(self) -> str:
        """The grid's text. Raises StorageError if it is damaged."""
        return self._file("grid.yaml").decode()

    def cells(self) -> Any:
        """The cells as a pyarrow.Table. Raises StorageError if the file is damaged."""
        from storage.tables import read_table

        return read_table(self._file("cells.parquet"), "cells")

    def _sealed(self) -> dict[str, Any]:
        if not self.exists:
            raise StorageError(f"there is no sweep {self.id!r} in {self.root}")
        try:
            return unseal(read_bytes(self.path / "plan.json"))
        except Damaged as damage:
            raise self._damaged("plan.json", damage) from damage

    def _file(self, name: str) -> bytes:
        expected = self._sealed()["files"][name]
        try:
            data = read_bytes(self.path / name)
        except Damaged as damage:
            raise self._damaged(name, damage) from damage
        if hashlib.sha256(data).hexdigest() != expected:
            raise self._damaged(name, "it does not match the plan")
        return data

    def _damaged(self, name: str, why: object) -> StorageError:
        return StorageError(f"{name} of sweep {self.id!r} is damaged ({why}): submit its grid again to repair it")

    # -- events ----------------------------------------------------------------------------------------------

    def append(self, event: str, **fields: Any) -> None:
        """Append one event with the time in UTC, synced. Raises StorageFull; a torn line is skipped by readers."""
        record = {"event": event, "time": _now(), **plain(fields, "event")}
        line = json.dumps(record, allow_nan=False).encode()
        with full_disk_is_clear(self.root, "events.jsonl"):
            self.path.mkdir(parents=True, exist_ok=True)
            append_line(self.path / "events.jsonl", line)
        lease.refresh(self.note)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every readable event in order; a line torn by a kill or a full disk is left out."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record

    def start_run(self, **facts: Any) -> str:
        """Log the start of a driver and return its run id; `facts` are further columns of the runs table."""
        _refuse_unknown(facts)
        run = uuid.uuid4().hex[:12]
        where = {"host": host(), "pid": os.getpid(), "store": str(self.root)}
        self.append("run", **{**where, "run": run, "started_at": _now(), **facts})
        return run

    def end_run(self, run: str, status: str, **facts: Any) -> None:
        """Log how the driver ended."""
        _refuse_unknown(facts)
        self.append("run", **{"run": run, "status": status, "finished_at": _now(), **facts})

    def runs(self) -> list[dict[str, Any]]:
        """Rows of the runs table, oldest first."""
        found: dict[str, dict[str, Any]] = {}
        for record in self.events():
            if record.get("event") == "run" and "run" in record:
                row = found.setdefault(record["run"], {"sweep": self.id})
                row.update({name: value for name, value in record.items() if name in RUNS})
        for row in found.values():
            for name in ("started_at", "finished_at"):
                if name in row:
                    row[name] = datetime.fromisoformat(row[name])
        return [row for row in found.values() if "started_at" in row]

    # -- driver ----------------------------------------------------------------------------------------------

    @property
    def note(self) -> Path:
        """The file that says who drives it."""
        return self.path / "driver.json"

    def driving(self) -> AbstractContextManager[lease.Holder | None]:
        """Say inside the block that this process drives the sweep; yields another running driver, if any."""
        self.path.mkdir(parents=True, exist_ok=True)
        return lease.driving(self.root, self.note)

    def driver(self) -> lease.Holder | None:
        """The driver that runs now, as far as can be seen."""
        return lease.driver(self.note)


def sweeps(store: Store) -> list[Sweep]:
    """Every sweep of the store, the one planned last at the end."""
    plans = (store.root / "sweeps").glob("*/plan.json")
    ordered = sorted(plans, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return [Sweep(store.root, path.parent.name) for path in ordered]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _refuse_unknown(facts: Mapping[str, Any]) -> None:
    unknown = sorted(set(facts) - set(RUNS))
    if unknown:
        raise StorageError(f"table runs has no column {unknown[0]!r}")
