"""Grid -> cells: the product of everything that is a list, with names resolved and every combination checked.

A cell is one model under one recipe, calibrated one way, evaluated with one setting. The full-precision cell of
every (model, evaluation) is always there: it is what the others are paired with. Two entries that mean the same
work are one cell. Checks that need the model (group sizes that divide, tokenizer, tensors) happen here too, so
that nothing is found out after hours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from evaluation.spec import EvaluationSettings, TaskError, TaskSpec, resolve_task
from models.calibration import Calibration, CalibrationError, calibration_file, content_hash
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
    def calibrated(self) -> bool:
        """Whether calibration decides this cell's numbers. For other recipes it only measures layer errors."""
        return self.recipe is not None and self.recipe.needs_statistics

    @property
    def id(self) -> str:
        """12 hex digits of the cell's content."""
        return fingerprint("cell", self._content())[:12]

    def _content(self) -> dict[str, Any]:
        return {
            "model": self.model.identity(),
            "recipe": self.recipe.canonical() if self.recipe else None,
            "calibration": self.calibration.identity() if self.calibration and self.calibrated else None,
            "propagation": self.propagation if self.calibrated else None,
            "settings": settings_fields(self.settings),
        }

    @property
    def labels(self) -> tuple[str, str, str]:
        """What people call it; of two entries that mean the same cell, the lesser labels are kept."""
        method, calibration = self.recipe and self.recipe.method, self.calibration and self.calibration.name
        return self.model.name, method or "", calibration or ""

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
            **(calibration_columns(self.calibration) if self.calibration and self.calibrated else {}),
            "calibration": self.calibration.name if self.calibration and self.calibrated else None,
            "propagation": self.propagation if self.calibrated else None,
            **settings_fields(self.settings),
        }


def calibration_columns(calibration: Calibration) -> dict[str, Any]:
    """What decides statistics, by column name; labels and places are not among it."""
    return {
        "masking": calibration.masking,
        "calibration_samples": calibration.samples,
        "calibration_length": calibration.length,
        "calibration_seed": calibration.seed,
        "packing": calibration.packing,
        "prefix_ratio": calibration.prefix_ratio,
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
        if plans[-1].task.name in [p.task.name for p in plans[:-1]]:
            raise source.error(("tasks", i), f"task {plans[-1].task.name!r} is listed twice")
    return plans


def expand_cells(grid: Grid, source: YamlFile) -> list[Cell]:
    """All cells, full precision first, then in the order of the file, each once."""
    settings = _settings(grid, source)
    calibrations = _calibrations(grid, source)
    entries = [(("methods", i), entry) for i, entry in enumerate(grid.methods)]
    entries += [(("include", i), entry) for i, entry in enumerate(grid.include)]
    cells: dict[str, Cell] = {}
    for i, model in enumerate(_models(grid, source)):
        own = [Cell(model, None, None, None, s) for s in settings]
        for place, entry in entries:
            for flat in _flat(grid, entry, grid.models[i].overrides, source, place):
                own += [_cell(source, place, model, dict(flat), calibrations, s) for s in settings]
        for cell in own:
            cells[cell.id] = min(cells.get(cell.id, cell), cell, key=lambda c: c.labels)
    return _without_excluded(grid, source, list(cells.values()))


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
            path = str(calibration_file(entry.data).resolve()) if entry.data != "bundled" else entry.data
            fields = {**entry.model_dump(), "data": path}  # absolute: workers run elsewhere
            result[name] = Calibration(name=name, content=content_hash(entry.data), **fields)
        except CalibrationError as error:
            raise source.error(("calibration", name, "data"), str(error)) from None
    return result


def _models(grid: Grid, source: YamlFile) -> list[Model]:
    """The models, found and hashed. Two checkpoints under one label are refused: their rows would look alike."""
    models: list[Model] = []
    for i, entry in enumerate(grid.models):
        try:
            model = read_model(entry.model, entry.dtype, grid.resources.device)
        except ModelError as error:
            raise source.error(("models", i), str(error)) from None
        model = replace(model, name=entry.name or entry.model.rstrip("/").rsplit("/", 1)[-1])
        twins = [m for m in models if m.name == model.name and m.identity() != model.identity()]
        if twins:
            raise source.error(
                ("models", i), f"another model is called {model.name!r} already: give this one a name:"
            )
        models.append(model)
    return models


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
    if not isinstance(name, str) or name not in calibrations:
        raise source.error(
            (*place, "calibration"), f"unknown calibration {name!r}{nearest(str(name), calibrations)}"
        )
    if propagation not in ("parallel", "sequential"):
        raise source.error((*place, "propagation"), f"must be 'parallel' or 'sequential', got {propagation!r}")
    recipe = _recipe(source, place, model, flat)
    if not recipe.needs_statistics:
        propagation = "parallel"
    return Cell(model, recipe, calibrations[name], propagation, settings)


def _recipe(source: YamlFile, place: Place, model: Model, flat: dict[str, Any]) -> Recipe:
    try:
        recipe = resolve(flat)
        for _, n_in in model.spec.linears().values():
            recipe.check_features(n_in)
        if recipe.needs_full_inputs:
            raise RecipeError("sweeps collect no cross matrix, which gptaq needs; use rounding gptq", "rounding")
    except RecipeError as error:
        raise source.error((*place, error.field) if error.field else place, str(error)) from None
    return recipe


def _without_excluded(grid: Grid, source: YamlFile, cells: list[Cell]) -> list[Cell]:
    """Cells that no rule of `exclude` matches; full precision stays. A rule must say something and match."""
    known = {name for cell in cells for name in cell.columns()}
    dropped: set[str] = set()
    for i, rule in enumerate(grid.exclude):
        for name in rule:
            if name not in known:
                raise source.error(("exclude", i, name), f"unknown column{nearest(name, known)}")
        matched = {
            c.id for c in cells if c.recipe and all(_matches(c.columns().get(k), v) for k, v in rule.items())
        }
        if not rule or not matched:
            raise source.error(("exclude", i), "this rule is empty" if not rule else "this rule matches no cell")
        dropped |= matched
    return [cell for cell in cells if cell.id not in dropped]


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else canonical(value) == canonical(wanted)
