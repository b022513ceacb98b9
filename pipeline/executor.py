"""What the scheduler asks of whoever runs tasks; in-process, Ray and the tests' fake all speak it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.tasks import Task

Status = Literal["done", "failed", "lost", "fatal"]


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    done: the artifact is committed (by this attempt or another; `cached` tells). failed: the computation raised,
    and would again. lost: the attempt died or met a passing fault, trying again makes sense. fatal: nothing else
    can succeed either (store full), the sweep stops. `error` is one line, `trace` the end of the traceback.
    """

    key: str
    attempt: int
    status: Status
    error: str = ""
    seconds: float = 0.0
    cached: bool = False
    trace: str = ""


@dataclass(frozen=True)
class Slot:
    """A place that can run one task now. `affinity` is what it ran last."""

    name: str
    kinds: frozenset[str]
    affinity: str = ""


class Executor(Protocol):
    """Runs tasks, one in flight per slot. An outcome may come late, twice, or as lost, but it comes."""

    def idle(self) -> Sequence[Slot]:
        """Slots any one of which could take a task now, in a fixed order; asked again after each submit."""

    def submit(self, slot: Slot, task: Task, attempt: int) -> None:
        """Start a task on a free slot; returns at once. The outcome repeats the attempt."""

    def wait(self) -> Sequence[Outcome]:
        """Block until something ended (or a short time passed) and tell what."""

    def close(self) -> None:
        """Let go of everything held."""
