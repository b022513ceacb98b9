"""The grid file: what a researcher writes, validated at the edge.

Lists in a method entry or under `evaluation:` expand into their product (`pipeline.cells`). Recipe fields are
checked by `quant.recipe`, so that a method is described in one place only. Every error is one line with file,
line and field, and the nearest valid name where there is one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.resources import Resources, RoleResources
from pipeline.yamlfile import Place, YamlFile, read_yaml

Propagation = Literal["parallel", "sequential"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Strict):
    """One model. `overrides` replace recipe fields of every method entry, for this model only."""

    model: str
    name: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    overrides: dict[str, Any] = {}


class CalibrationEntry(_Strict):
    """A named calibration setting; fields as in `models.calibration.Calibration`."""

    data: str = "bundled"
    samples: int = Field(128, ge=1)
    length: int = Field(128, ge=2)
    held_out: int = Field(16, ge=1)
    masking: Literal["none", "uniform"] = "uniform"
    prefix_ratio: float = Field(0.0, ge=0, lt=1)
    packing: Literal["rows", "stream"] = "stream"
    seed: int = 0


class TaskEntry(_Strict):
    """One lm-eval task: a bundled name, a YAML file of one's own, or a name of lm-eval's registry.

    shots: few-shot examples (None: as the task says). limit: first documents only. shards: how many pieces
    its requests are evaluated and committed in.
    """

    task: str
    shots: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    shards: int = Field(4, ge=1)


def _as_entry(field: str) -> BeforeValidator:
    """`- name` is short for `- {field: name}`."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


class Grid(_Strict):
    """A whole sweep."""

    name: str = "sweep"
    models: list[Annotated[ModelEntry, _as_entry("model")]] = Field(min_length=1)
    methods: list[Annotated[dict[str, Any], _as_entry("method")]] = Field(min_length=1)
    calibration: dict[str, CalibrationEntry] = Field({"masked": CalibrationEntry()}, min_length=1)
    tasks: list[Annotated[TaskEntry, _as_entry("task")]] = Field(min_length=1)
    evaluation: dict[str, Any] = {}
    propagation: Propagation | list[Propagation] = "parallel"
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    resources: Resources = Resources()
    store: str = "runs"


def read_grid(path: str | Path) -> tuple[Grid, YamlFile]:
    """Read and validate a grid. Raises GridError, one line, for the first problem."""
    source = read_yaml(path)
    if not isinstance(source.data, dict):
        raise source.error((), "a grid is a mapping with models, methods and tasks")
    try:
        return Grid.model_validate(source.data), source
    except ValidationError as error:
        raise _first_error(source, error) from None


def nearest(name: str, valid: Iterable[str]) -> str:
    """', did you mean X?' or ', valid: ...' for an error message."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {close[0]!r}?" if close else f" (valid: {', '.join(names)})"


def _first_error(source: YamlFile, error: ValidationError) -> Exception:
    problem = error.errors()[0]
    place = _place(source, problem["loc"], missing=problem["type"] == "missing")
    if problem["type"] == "extra_forbidden":
        known = _fields_at(place[:-1])
        return source.error(place, f"unknown key{nearest(str(place[-1]), known)}")
    if problem["type"] == "missing":
        return source.error(place, "is required")
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return source.error(place, f"{message}, got {problem['input']!r}")


def _place(source: YamlFile, loc: Place, missing: bool) -> Place:
    """The part of pydantic's location that exists in the file; it also names union members there."""
    place: Place = ()
    for part in loc:
        if (*place, part) in source.lines or (missing and part is loc[-1]):
            place = (*place, part)
    return place


def _fields_at(place: Place) -> Iterable[str]:
    """The keys that are valid at a place of the grid."""
    nested: dict[str, type[BaseModel]] = {
        "models": ModelEntry,
        "calibration": CalibrationEntry,
        "tasks": TaskEntry,
    }
    if not place:
        return Grid.model_fields
    if place[0] == "resources":
        return RoleResources.model_fields if len(place) > 1 else Resources.model_fields
    return nested[str(place[0])].model_fields
