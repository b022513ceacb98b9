"""Recipes: the flat fields of a grid become one checked composition.

Importing this module loads no torch. Everything that can be known to be wrong without the model is found
here, in one line that names the field; whether group sizes divide a layer is for Recipe.check_features, once
shapes are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from quant.activation import Activation
from quant.errors import RecipeError, nearest_name
from quant.protocols import Allocation, Rounding, Transform
from quant.registry import ALLOCATIONS, METHODS, ROUNDINGS, TRANSFORMS
from quant.rounding.gptaq import GPTAQ
from quant.weights import SYMMETRIC_GRIDS, WeightGrid, check_divides

__all__ = ["FIELDS", "Recipe", "RecipeError", "rebuild", "resolve"]

_CHOICES: dict[str, Mapping[str, type[Any]]] = {
    "transform": TRANSFORMS,
    "rounding": ROUNDINGS,
    "allocation": ALLOCATIONS,
}
_DEFAULT_CHOICE = {"transform": "identity", "rounding": "nearest", "allocation": "uniform"}
_ALWAYS: dict[str, type[Any]] = {"weights": WeightGrid, "activation": Activation}
_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a name"}


@dataclass(frozen=True)
class Recipe:
    """What is done to every linear layer; `method` is only the label of the preset it came from."""

    method: str
    transform: Transform
    rounding: Rounding
    allocation: Allocation
    weights: WeightGrid
    activation: Activation

    @property
    def needs_statistics(self) -> bool:
        """Whether some part must see calibration statistics."""
        return any(part.needs_statistics for part in (self.transform, self.rounding, self.allocation))

    @property
    def needs_full_inputs(self) -> bool:
        """Whether statistics must know the full-precision model's inputs beside the quantized one's."""
        return isinstance(self.rounding, GPTAQ)

    def canonical(self) -> dict[str, dict[str, object]]:
        """The composition as plain JSON values, without the label: equal work has equal values."""
        named = {name: {"name": getattr(self, name).name, **asdict(getattr(self, name))} for name in _CHOICES}
        return {**named, **{name: asdict(getattr(self, name)) for name in _ALWAYS}}

    def fields(self) -> dict[str, object]:
        """Every public recipe field by its name, None where this composition has no such field."""
        found: dict[str, object] = dict.fromkeys(FIELDS)
        found["method"] = self.method
        for name in _CHOICES:
            found[name] = getattr(self, name).name
        for part in self._parts():
            found.update({name: getattr(part, name) for name in _public_fields(type(part))})
        if not self.activation.active:
            found.update(dict.fromkeys(_ACTIVATION_DETAILS))
        found["symmetric"] = self.weights.symmetric
        return found

    def check_features(self, features: int) -> None:
        """Raise RecipeError unless the parts fit a layer with `features` inputs."""
        self.transform.check_features(features)
        check_divides(self.weights.group_size, features)
        check_divides(self.activation.activation_group_size, features, "activation_group_size")

    def _parts(self) -> Iterator[Any]:
        for name in (*_CHOICES, *_ALWAYS):
            yield getattr(self, name)


def resolve(given: Mapping[str, object]) -> Recipe:
    """The recipe that the flat fields `given` describe; what is not given comes from the preset `method`.

    Raises RecipeError for an unknown method, choice or field (naming the nearest), a wrong type, a value out
    of range, and a field that no chosen part has.
    """
    method = _known("method", given.get("method"), METHODS)
    for name in given:
        if name not in FIELDS:
            raise RecipeError(f'unknown recipe field "{name}"; {nearest_name(str(name), FIELDS)}', str(name))
    values = {**_DEFAULT_CHOICE, **METHODS[method].defaults, **given}
    classes = {name: known[_known(name, values[name], known)] for name, known in _CHOICES.items()} | _ALWAYS
    _refuse_idle(given, classes)
    values |= _weight_grid(given, METHODS[method].symmetric_grid)
    parts = {name: _build(part, values) for name, part in classes.items()}
    _refuse_idle_activation(given, parts["activation"])
    return Recipe(method=method, **parts)


def rebuild(canonical: Mapping[str, Mapping[str, object]], method: str = "custom") -> Recipe:
    """The recipe whose `canonical()` this is, labelled `method`. Raises RecipeError or KeyError otherwise."""
    parts: dict[str, Any] = {}
    for name, known in _CHOICES.items():
        details = dict(canonical[name])
        parts[name] = known[_known(name, details.pop("name"), known)](**details)
    for name, part in _ALWAYS.items():
        parts[name] = part(**canonical[name])
    return Recipe(method=method, **parts)


def _public_fields(part: type[Any]) -> dict[str, type[Any]]:
    """Recipe fields of a part and their types."""
    hints = get_type_hints(part)
    return {field.name: hints[field.name] for field in fields(part) if not field.metadata.get("internal")}


def _all_fields() -> tuple[str, ...]:
    parts = [*_ALWAYS.values(), *(part for known in _CHOICES.values() for part in known.values())]
    details = [name for part in parts for name in _public_fields(part)]
    return tuple(dict.fromkeys(["method", *_CHOICES, "wbits", "abits", "group_size", "symmetric", *details]))


FIELDS = _all_fields()
_ACTIVATION_DETAILS = tuple(name for name in _public_fields(Activation) if name != "abits")


def _known(field: str, value: object, known: Mapping[str, object]) -> str:
    if value is None:
        raise RecipeError(f"{field} is missing; valid: {', '.join(sorted(known))}", field)
    if not isinstance(value, str):
        raise RecipeError(f"{field} must be a name, not {value!r}; valid: {', '.join(sorted(known))}", field)
    if value not in known:
        raise RecipeError(f'unknown {field} "{value}"; {nearest_name(value, known)}', field)
    return value


def _refuse_idle(given: Mapping[str, object], classes: Mapping[str, type[Any]]) -> None:
    """Refuse fields that exist, but in no chosen part."""
    used = {"method", "symmetric", *_CHOICES}
    used |= {name for part in classes.values() for name in _public_fields(part)}
    for name in given:
        if name in used:
            continue
        owner, choice = next(
            (component, choice)
            for component, known in _CHOICES.items()
            for choice, part in known.items()
            if name in _public_fields(part)
        )
        chosen = classes[owner].name
        raise RecipeError(f"{name} has no effect with {owner} {chosen} (it belongs to {owner} {choice})", name)


def _refuse_idle_activation(given: Mapping[str, object], activation: Activation) -> None:
    for name in _ACTIVATION_DETAILS:
        if name in given and not activation.active:
            raise RecipeError(f"{name} has no effect with abits 16", name)


def _weight_grid(given: Mapping[str, object], symmetric_grid: str) -> dict[str, object]:
    """The grid that `symmetric` stands for; both fields together must agree."""
    if "symmetric" not in given:
        return {}
    symmetric, named = _typed("symmetric", given["symmetric"], bool), given.get("weight_grid")
    if named is None:
        return {"weight_grid": symmetric_grid} if symmetric else {}
    if symmetric != (named in SYMMETRIC_GRIDS):
        raise RecipeError(f"symmetric {str(symmetric).lower()} contradicts weight_grid {named}", "symmetric")
    return {}


def _build(part: type[Any], values: Mapping[str, object]) -> Any:
    """The part with its values checked for type here, and for range by the part itself."""
    kinds = _public_fields(part)
    return part(**{name: _typed(name, values[name], kind) for name, kind in kinds.items() if name in values})


def _typed(name: str, value: object, kind: type[Any]) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    hint = " (YAML reads 1e-2 as text; write 0.01)" if kind is float and isinstance(value, str) else ""
    raise RecipeError(f"{name} must be {_TYPE_NAMES[kind]}, not {value!r}{hint}", name)
