"""Running the command line: in this process, or as a process of its own where signals or imports matter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cli.app import run

ROOT = Path(__file__).parents[2]
CELLS = [{"method": "rtn", "wbits": 4, "group_size": 32}, {"method": "gptq", "wbits": 2, "group_size": 32}]


@dataclass(frozen=True)
class Told:
    """Exit code, stdout and stderr of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The envelope; fails if stdout holds anything else."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The error line; fails unless stderr ends with exactly one, and no traceback came before it."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("dlq: error: ")]
        assert lines == self.err.splitlines()[-1:], self.err
        return lines[0]


Dlq = Callable[..., Told]


@pytest.fixture
def dlq(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Dlq]:
    """Run one command in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLQ_STORE", raising=False)
    threads = torch.get_num_threads()

    def call(*arguments: str | Path) -> Told:
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Told(code, out, err)

    yield call
    torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    """For a command of its own: this source tree, no colours, no store."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DLQ_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*arguments: str | Path) -> list[str]:
    """The command line of a `dlq` process."""
    return [sys.executable, "-m", "cli.app", *map(str, arguments)]


@pytest.fixture(scope="session")
def process() -> SimpleNamespace:
    """`command(...)` and `environment()` of a dlq process."""
    return SimpleNamespace(command=command, environment=environment)


@pytest.fixture
def small_grid(grid_file: Callable[..., Path]) -> Path:
    """Three cells on two tasks."""
    return grid_file("small.yaml", methods=CELLS)


@pytest.fixture(scope="session")
def finished(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(grid, store) of a complete sweep of three cells, run by the command line once for all tests."""
    import yaml

    folder = tmp_path_factory.mktemp("finished")
    grid = folder / "grid.yaml"
    calibration = {"data": str(workspace / "calibration.jsonl"), "samples": 12, "held_out": 2, "length": 32}
    grid.write_text(
        yaml.safe_dump(
            {
                "name": "ti\x1b[31mny",  # a hostile name: every place that prints it must clean it
                "models": [str(workspace / "model")],
                "methods": CELLS,
                "calibration": {"masked": calibration},
                "tasks": [{"task": str(workspace / f"{name}.yaml"), "shards": 2} for name in ("choice", "write")],
                "evaluation": {"samples": 4, "batch_size": 4},
            }
        )
    )
    store = folder / "store"
    assert run(["submit", "--grid", str(grid), "--store", str(store), "--local"]) == 0
    return grid, store
