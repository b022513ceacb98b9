"""One attempt at one task, the same in-process and on Ray: if committed return, else compute and commit.

Whatever an attempt raises becomes an Outcome here: a fault of the machine is worth another attempt, a fault of
the data or the recipe is not, and a full store ends the sweep. Does not protect against a process that dies:
the executor reports that as lost.
"""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.executor import Outcome
from pipeline.tasks import Task
from storage.artifacts import Store
from storage.crash import point
from storage.errors import StorageError, StorageFull
from workers.calibrate import calibrate
from workers.evaluate import build, evaluate
from workers.loading import Memory
from workers.quantize import quantize
from workers.score import score

Unit = Callable[[Any, Store, Memory, Path, dict[str, Any]], None]

UNITS: dict[str, Unit] = {
    "calibrate": calibrate,
    "quantize": quantize,
    "requests": build,
    "evaluate": evaluate,
    "score": score,
}

TABLES: dict[str, dict[str, str]] = {
    "calibrate": {"activations": "activations.parquet"},
    "quantize": {"layers": "layers.parquet"},
    "requests": {},
    "evaluate": {"samples": "samples.parquet"},
    "score": {"scores": "scores.parquet"},
}

# Faults that may pass: the machine, not the work.
PASSING = (OSError, MemoryError, torch.OutOfMemoryError, StorageError)


def attempt(task: Task, number: int, store: Store, memory: Memory) -> Outcome:
    """Run one attempt and say how it ended; raises nothing that a task can cause."""
    started = time.perf_counter()
    try:
        cached = store.has(task.key)
        if not cached:
            point(f"{task.kind}.start")
            run(task, store, memory)
    except StorageFull as error:
        return Outcome(task.key, number, "fatal", _one_line(error))
    except PASSING as error:
        return Outcome(task.key, number, "lost", _one_line(error))
    except Exception as error:
        return Outcome(task.key, number, "failed", _one_line(error), trace=traceback.format_exc()[-4000:])
    return Outcome(task.key, number, "done", seconds=time.perf_counter() - started, cached=cached)


def run(task: Task, store: Store, memory: Memory) -> None:
    """Compute a task and commit its artifact."""
    facts: dict[str, Any] = {}
    spec, inputs = task.spec(), task.inputs()
    with store.commit(task.key, task.kind, spec, inputs, facts, TABLES[task.kind]) as folder:
        started = time.perf_counter()
        torch.set_num_threads(task.threads)
        with torch.inference_mode():
            UNITS[task.kind](task, store, memory, folder, facts)
        facts["seconds"] = time.perf_counter() - started
        facts["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        facts["torch"] = torch.__version__
        point(f"{task.kind}.computed")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | StorageError) else f"{type(error).__name__}: {text}"
