"""What an evaluation is, as plain data: which task, which estimator, which sampler.

Torch-free and lm-eval-free, so that a plan over hundreds of cells takes milliseconds. Does not protect against
data on the hub that changes under an unchanged task definition: only local data files are hashed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from evaluation.catalog import TaskError, bundled_tasks, read_task

ESTIMATORS = ("stratified", "enumerate", "auto")
REMASKING = ("low_confidence", "random")
LIKELIHOOD, GENERATE = "loglikelihood", "generate"
LONGEST_ENUMERATED = 12  # tokens; 4095 masks

__all__ = [
    "Canvas",
    "EvaluationSettings",
    "TaskError",
    "TaskSpec",
    "list_tasks",
    "resolve_task",
]


@dataclass(frozen=True)
class TaskSpec:
    """One lm-eval task as a sweep sees it.

    kind: 'loglikelihood' (multiple choice and the like) or 'generate'. content: hash of the definition and its
    local data. path: the user's file, '' for a task found by name; it is a place, never part of an identity.
    shots: few-shot examples (None: as the task says). limit: first documents only (None: all).
    """

    name: str
    kind: str
    content: str
    shots: int | None = None
    limit: int | None = None
    path: str = ""

    def identity(self) -> dict[str, Any]:
        """What decides the requests and how they are scored."""
        return {"task": self.name, "content": self.content, "shots": self.shots, "limit": self.limit}


def list_tasks() -> list[str]:
    """Names of the tasks that ship with dlq, sorted."""
    return sorted(bundled_tasks())


def resolve_task(name: str, shots: int | None = None, limit: int | None = None) -> TaskSpec:
    """Find a bundled task, a YAML file of the user's, or a task of lm-eval's registry, in this order.

    Raises TaskError, one line: unknown name (with the nearest bundled one), a group, a kind of task that a
    diffusion model cannot answer, a task that runs generated code, a missing data file, few-shot examples asked of
    a task fixed at none.
    """
    if shots is not None and shots < 0:
        raise TaskError(f"shots must be 0 or more, got {shots}", "shots")
    if limit is not None and limit < 1:
        raise TaskError(f"limit must be 1 or more, got {limit}", "limit")
    file = read_task(name)
    output = file.config.get("output_type", "generate_until")
    if output == "loglikelihood_rolling":
        raise TaskError(f"task {file.name!r} scores whole texts, which dlq does not support")
    if file.config.get("unsafe_code"):
        raise TaskError(f"task {file.name!r} runs code that the model wrote, which dlq does not do")
    if shots and file.config.get("num_fewshot") == 0:
        raise TaskError(f"task {file.name!r} is defined without few-shot examples, shots: {shots} is refused")
    kind = GENERATE if output == "generate_until" else LIKELIHOOD
    path = "" if file.named else str(file.path)
    return TaskSpec(file.name, kind, file.content, shots, limit, path)


@dataclass(frozen=True)
class Canvas:
    """How one answer is generated: gen_length tokens in blocks of block_length, `steps` denoising steps in all."""

    gen_length: int
    block_length: int
    steps: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise TaskError(f"{name} must be 1 or more, got {value}", name)
        if self.gen_length % self.block_length:
            raise TaskError(
                f"block_length {self.block_length} does not divide gen_length {self.gen_length}", "block_length"
            )
        if self.steps % self.blocks:
            raise TaskError(f"steps {self.steps} must be a multiple of the {self.blocks} blocks", "steps")

    @property
    def blocks(self) -> int:
        return self.gen_length // self.block_length


@dataclass(frozen=True)
class EvaluationSettings:
    """How tasks are answered; every field can be an axis of a grid.

    estimator, samples: see `evaluation.masks`. samples: Monte-Carlo draws per log-likelihood.
    gen_length: generated tokens (None: the task's own max_gen_toks). steps: denoising steps (None: one token
    per step). block_length: tokens per semi-autoregressive block (None: 32, or gen_length if that is less).
    remasking: 'low_confidence' or 'random'. temperature: 0 is greedy. cfg_scale: classifier-free guidance in
    LLaDA's convention, 0 is none. batch_size: documents per batch. tokens_per_forward: bound on rows x length
    of one forward pass. Batches decide the last bits of a result, so both belong to its identity.
    Raises TaskError, with `.field`, for wrong types and values.
    """

    estimator: str = "stratified"
    samples: int = 8
    steps: int | None = None
    gen_length: int | None = None
    block_length: int | None = None
    remasking: str = "low_confidence"
    temperature: float = 0.0
    cfg_scale: float = 0.0
    batch_size: int = 16
    tokens_per_forward: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        _one_of("estimator", self.estimator, ESTIMATORS)
        _one_of("remasking", self.remasking, REMASKING)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:  # NaN compares false
                raise TaskError(f"{name} must be a finite number of {least} or more, got {value}", name)
        if self.gen_length is not None:
            self.canvas(self.gen_length)

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, optional = str(field.type).removesuffix(" | None"), str(field.type).endswith("None")
            if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)  # 0 and 0.0 are one setting and must give one key
                object.__setattr__(self, field.name, value)
            if not (value is None and optional) and type(value).__name__ != kind:
                raise TaskError(f"{field.name} must be of type {kind}, got {value!r}", field.name)

    def canvas(self, max_gen_toks: int) -> Canvas:
        """The canvas of a task whose own limit is max_gen_toks; TaskError where the lengths do not divide."""
        length = self.gen_length or max_gen_toks
        return Canvas(length, self.block_length or min(32, length), self.steps or length)

    def for_requests(self) -> dict[str, Any]:
        """The fields that decide the requests."""
        return {"batch_size": self.batch_size}

    def for_kind(self, kind: str) -> dict[str, Any]:
        """The fields that decide answers of one kind: others do not make a result stale."""
        other = _LIKELIHOOD_ONLY if kind == GENERATE else _GENERATION_ONLY
        return {name: value for name, value in asdict(self).items() if name not in other}


_LEAST = {
    "samples": 1,
    "steps": 1,
    "gen_length": 1,
    "block_length": 1,
    "temperature": 0,
    "cfg_scale": 0,
    "batch_size": 1,
    "tokens_per_forward": 1,
    "seed": 0,
}
_LIKELIHOOD_ONLY = frozenset({"estimator", "samples", "tokens_per_forward"})
_GENERATION_ONLY = frozenset({"steps", "gen_length", "block_length", "remasking", "temperature"})


def _one_of(field: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise TaskError(f"{field} must be one of {', '.join(valid)}, got {value!r}", field)
