"""Grid -> cells: the product of everything that is a list, with names resolved and every combination checked.

A cell is one model under one recipe, calibrated one way, evaluated with one setting. The full-precision cell of
every (model, evaluation) is always there: it is what the others are paired with. Two entries that mean the same
work are one cell. Checks that need the model (group sizes that divide, tokenizer, tensors) happen here too, so
that nothing is found out after hours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from evaluation.spec import EvaluationSettings, TaskError, TaskSpec, resolve_task
from models.calibration import Calibration, CalibrationError, content_hash
from models.files import Model, read_model
from models.spec import ModelError
from pipeline.fingerprint import canonical, fingerprint
from pipeline.grid import Grid, nearest
from pipeline.yamlfile import Place, YamlFile
from quant.recipe import FIELDS, Recipe, RecipeError, resolve

# Fields of a method entry that choose how a recipe is applied, beside the recipe's own.
AROUND_RECIPE = ("calibration", "propagation")


@dataclass(frozen=True)
class Cell:
    """One row group of the result table. `recipe` None is full precision."""

    model: Model
    recipe: Recipe | None
    calibration: Calibration | None
    propagation: str | None
    settings: EvaluationSettings

    @property
    def id(self) -> str:
        """12 hex digits of the cell's content."""
        return fingerprint("cell", self._content())[:12]

    def _content(self) -> dict[str, Any]:
        return {
            "model": self.model.identity(),
            "recipe": self.recipe.canonical() if self.recipe else None,
            "calibration": self.calibration.identity() if self.calibration else None,
            "propagation": self.propagation,
            "settings": settings_fields(self.settings),
        }

    def columns(self) -> dict[str, Any]:
        """What describes this cell in tables, by column name."""
        recipe = self.recipe.fields() if self.recipe else {"method": "full_precision", "wbits": 16, "abits": 16}
        return {
            **recipe,
            "cell": self.id,
            "model": self.model.name,
            "model_hash": self.model.weights,
            "dtype": self.model.dtype,
            "device": self.model.device,
            "calibration": self.calibration.name if self.calibration else None,
            "masking": self.calibration.masking if self.calibration else None,
            "propagation": self.propagation,
            **settings_fields(self.settings),
        }


def settings_fields(settings: EvaluationSettings) -> dict[str, Any]:
    """Evaluation settings as a flat dict of plain values."""
    return asdict(settings)


@dataclass(frozen=True)
class TaskPlan:
    """One task of the grid and the number of shards it is evaluated in."""

    task: TaskSpec
    shards: int


def expand_tasks(grid: Grid, source: YamlFile) -> list[TaskPlan]:
    """The tasks of a grid, found and hashed. GridError names the line of an unknown one."""
    plans = []
    for i, entry in enumerate(grid.tasks):
        try:
            plans.append(TaskPlan(resolve_task(entry.task, entry.shots, entry.limit), entry.shards))
        except TaskError as error:
            raise source.error(("tasks", i), str(error)) from None
    return plans


def expand_cells(grid: Grid, source: YamlFile) -> list[Cell]:
    """All cells, full precision first, then in the order of the file, each once."""
    cells: dict[str, Cell] = {}
    settings = _settings(grid, source)
    calibrations = _calibrations(grid, source)
    entries = [(("methods", i), entry) for i, entry in enumerate(grid.methods)]
    entries += [(("include", i), entry) for i, entry in enumerate(grid.include)]
    for i, model_entry in enumerate(grid.models):
        model = _model(grid, source, i)
        own = [Cell(model, None, None, None, s) for s in settings]
        for place, entry in entries:
            for flat in _flat(grid, entry, model_entry.overrides, source, place):
                for setting in settings:
                    own.append(_cell(source, place, model, dict(flat), calibrations, setting))
        cells |= {cell.id: cell for cell in own if cell.recipe is None or not _excluded(grid, cell)}
    return list(cells.values())


def _flat(
    grid: Grid, entry: Mapping[str, Any], overrides: Mapping[str, Any], source: YamlFile, place: Place
) -> Iterator[dict[str, Any]]:
    """Every combination of an entry, with the model's overrides in each combination that has such a field."""
    for flat in _product({"propagation": grid.propagation, **entry}, source, place):
        kept = {name: value for name, value in overrides.items() if name in flat or _has_field(flat, name)}
        yield from _product({**flat, **kept}, source, place)


def _has_field(flat: Mapping[str, Any], name: str) -> bool:
    """Whether this combination's recipe has a field; unknown names count, so that they are refused later."""
    try:
        recipe = resolve({k: v for k, v in flat.items() if k not in AROUND_RECIPE})
    except RecipeError:
        return True
    return name not in FIELDS or recipe.fields()[name] is not None


def _product(entry: Mapping[str, Any], source: YamlFile, place: Place) -> Iterator[dict[str, Any]]:
    axes = {name: value if isinstance(value, list) else [value] for name, value in entry.items()}
    for name, values in axes.items():
        if not values:
            raise source.error((*place, name), "an empty list leaves nothing to run")
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination, strict=True))


def _settings(grid: Grid, source: YamlFile) -> list[EvaluationSettings]:
    known = {field.name for field in fields(EvaluationSettings)}
    for name in grid.evaluation:
        if name not in known:
            raise source.error(("evaluation", name), f"unknown key{nearest(name, known)}")
    result = []
    for flat in _product(grid.evaluation, source, ("evaluation",)):
        try:
            result.append(EvaluationSettings(**flat))
        except (TaskError, TypeError) as error:
            raise source.error(("evaluation",), str(error)) from None
    return result


def _calibrations(grid: Grid, source: YamlFile) -> dict[str, Calibration]:
    result = {}
    for name, entry in grid.calibration.items():
        try:
            result[name] = Calibration(name=name, content=content_hash(entry.data), **entry.model_dump())
        except CalibrationError as error:
            raise source.error(("calibration", name, "data"), str(error)) from None
    return result


def _model(grid: Grid, source: YamlFile, index: int) -> Model:
    entry = grid.models[index]
    try:
        model = read_model(entry.model, entry.dtype, grid.resources.device)
    except ModelError as error:
        raise source.error(("models", index), str(error)) from None
    label = entry.name or entry.model.rstrip("/").rsplit("/", 1)[-1]
    return Model(label, model.folder, model.weights, model.tokenizer, model.spec, model.dtype, model.device)


def _cell(
    source: YamlFile,
    place: Place,
    model: Model,
    flat: dict[str, Any],
    calibrations: Mapping[str, Calibration],
    settings: EvaluationSettings,
) -> Cell:
    name = flat.pop("calibration", next(iter(calibrations)))
    propagation = flat.pop("propagation")
    if name not in calibrations:
        raise source.error(
            (*place, "calibration"), f"unknown calibration {name!r}{nearest(str(name), calibrations)}"
        )
    if propagation not in ("parallel", "sequential"):
        raise source.error((*place, "propagation"), f"must be 'parallel' or 'sequential', got {propagation!r}")
    recipe = _recipe(source, place, model, flat)
    if not recipe.needs_statistics:
        # Its weights do not depend on calibration, which then only measures errors: one cell, not one per setting.
        name, propagation = next(iter(calibrations)), "parallel"
    return Cell(model, recipe, calibrations[name], propagation, settings)


def _recipe(source: YamlFile, place: Place, model: Model, flat: dict[str, Any]) -> Recipe:
    try:
        recipe = resolve(flat)
        for _, n_in in model.spec.linears().values():
            recipe.check_features(n_in)
    except RecipeError as error:
        raise source.error((*place, error.field) if error.field else place, str(error)) from None
    return recipe


def _excluded(grid: Grid, cell: Cell) -> bool:
    columns = cell.columns()
    return any(all(_matches(columns.get(k), v) for k, v in rule.items()) for rule in grid.exclude)


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else canonical(value) == canonical(wanted)
