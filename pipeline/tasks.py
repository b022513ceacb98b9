"""The kinds of work as frozen data. A task knows what it computes from, never how, where or when.

Each task's `spec()` holds every field that decides its result, the keys of its inputs included; its key is the
fingerprint of that. Labels and folders are carried along for the worker but stay out of the spec, except in
Score, whose rows show the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from evaluation.spec import EvaluationSettings, TaskSpec
from models.calibration import Calibration
from models.files import Model
from pipeline.fingerprint import fingerprint
from quant.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """Base of all kinds. `threads`: torch threads it runs with, whoever runs it."""

    kind: ClassVar[str]
    threads: int = field(default=1, kw_only=True)

    def spec(self) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON values."""
        raise TypeError("a task without a kind has no spec")

    def inputs(self) -> dict[str, str]:
        """Role -> key of the artifacts this task reads."""
        return {}

    @cached_property
    def key(self) -> str:
        """Content key: equal keys are one task."""
        return fingerprint(self.kind, {**self.spec(), "inputs": self.inputs()})

    @property
    def affinity(self) -> str:
        """Tasks of one affinity share loaded state, so a worker prefers more of the same."""
        return self.kind

    def describe(self) -> str:
        """A few words for progress lines and errors."""
        return self.kind


@dataclass(frozen=True)
class Calibrate(Task):
    """Statistics of one block, and the activations the next Calibrate starts from.

    previous: key of the Calibrate of the block before. With `propagation: parallel` it kept the activations
    that leave its full-precision block. With `sequential` it kept those that enter it, and `quantized` is the
    Quantize of that block, through which they pass first.
    """

    kind: ClassVar[str] = "calibrate"
    model: Model
    calibration: Calibration
    propagation: str
    block: int
    previous: str | None = None
    quantized: str | None = None

    def spec(self) -> dict[str, Any]:
        return {
            "model": self.model.identity(),
            "tokenizer": self.model.tokenizer,
            "calibration": self.calibration.identity(),
            "propagation": self.propagation,
            "block": self.block,
            "threads": self.threads,
        }

    def inputs(self) -> dict[str, str]:
        roles = {"previous": self.previous, "quantized": self.quantized}
        return {role: key for role, key in roles.items() if key}

    def describe(self) -> str:
        return f"calibrate {self.model.name} block {self.block} ({self.calibration.name})"


@dataclass(frozen=True)
class Quantize(Task):
    """One block quantized with one recipe: packed weights and one report row per linear layer."""

    kind: ClassVar[str] = "quantize"
    model: Model
    recipe: Recipe
    block: int
    statistics: str
    calibration: Calibration
    propagation: str

    def spec(self) -> dict[str, Any]:
        return {
            "model": self.model.identity(),
            "recipe": self.recipe.canonical(),
            "block": self.block,
            "threads": self.threads,
        }

    def inputs(self) -> dict[str, str]:
        return {"statistics": self.statistics}

    def describe(self) -> str:
        return f"quantize {self.model.name} block {self.block} with {label(self.recipe)}"


@dataclass(frozen=True)
class BuildRequests(Task):
    """The evaluation requests of one lm-eval task, built once and shared by all cells."""

    kind: ClassVar[str] = "requests"
    task: TaskSpec
    model: Model
    settings: EvaluationSettings

    def spec(self) -> dict[str, Any]:
        return {
            "task": self.task.identity(),
            "tokenizer": self.model.tokenizer,
            "context_length": self.model.spec.context_length,
            "bos_id": self.model.spec.bos_id,
            "settings": self.settings.for_requests(),
        }

    def describe(self) -> str:
        return f"requests of {self.task.name}"


@dataclass(frozen=True)
class Evaluate(Task):
    """Answers to one shard of requests: shard `shard` of `shards`, cut at batch boundaries."""

    kind: ClassVar[str] = "evaluate"
    model: Model
    recipe: Recipe | None
    blocks: tuple[str, ...]
    task: TaskSpec
    requests: str
    settings: EvaluationSettings
    shard: int
    shards: int

    def spec(self) -> dict[str, Any]:
        return {
            "model": self.model.identity(),
            "recipe": self.recipe.canonical() if self.recipe else None,
            "settings": self.settings.for_kind(self.task.kind),
            "shard": self.shard,
            "shards": self.shards,
            "threads": self.threads,
        }

    def inputs(self) -> dict[str, str]:
        return {"requests": self.requests} | {f"block.{i:03d}": key for i, key in enumerate(self.blocks)}

    @property
    def affinity(self) -> str:
        return f"{self.model.weights}/{self.blocks}/{self.recipe and self.recipe.fields()}"

    def describe(self) -> str:
        what = label(self.recipe) if self.recipe else "full precision"
        return f"evaluate {self.task.name} {self.shard + 1}/{self.shards} of {self.model.name} {what}"


@dataclass(frozen=True)
class Score(Task):
    """Metrics of one cell on one task, paired with its full-precision cell on the same documents and masks."""

    kind: ClassVar[str] = "score"
    cell: str
    columns: tuple[tuple[str, Any], ...]
    task: TaskSpec
    settings: EvaluationSettings
    requests: str
    answers: tuple[str, ...]
    baseline: tuple[str, ...]
    blocks: tuple[str, ...]
    model: Model

    def spec(self) -> dict[str, Any]:
        return {"cell": self.cell, "columns": dict(self.columns), "task": self.task.identity()}

    def inputs(self) -> dict[str, str]:
        roles = {"requests": self.requests}
        for role, keys in (("answers", self.answers), ("baseline", self.baseline), ("block", self.blocks)):
            roles |= {f"{role}.{i:03d}": key for i, key in enumerate(keys)}
        return roles

    def describe(self) -> str:
        return f"score {self.task.name} of cell {self.cell}"


def label(recipe: Recipe) -> str:
    """Short name of a recipe for people: 'gptq W2', 'rtn W4A4'."""
    bits = f"W{recipe.weights.wbits}" + (f"A{recipe.activation.abits}" if recipe.activation.active else "")
    return f"{recipe.method} {bits}"
