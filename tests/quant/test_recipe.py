"""Recipes from flat fields: what is filled in, what is the same work, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.recipe import FIELDS, Recipe, RecipeError, rebuild, resolve
from quant.registry import ALLOCATIONS, METHODS, ROUNDINGS, TRANSFORMS
from quant.weights import GRIDS

COMMON = {
    "wbits": st.sampled_from([2, 3, 4, 8]),
    "group_size": st.sampled_from([-1, 32, 64, 128]),
    "weight_grid": st.sampled_from(GRIDS),
    "mse_clip": st.booleans(),
    "weight_clip_ratio": st.sampled_from([0.8, 1.0]),
    "clamp_zero": st.booleans(),
}
OF_GPTQ = {
    "act_order": st.booleans(),
    "static_groups": st.booleans(),
    "damping": st.sampled_from([0.005, 0.01, 0.1, 1]),
}
OF_GPTAQ = {**OF_GPTQ, "gptaq_alpha": st.sampled_from([0, 0.25, 1])}
OF_NEAREST = {"clip_search": st.booleans()}
OF_TRANSFORM = {
    "smoothquant": {"alpha": st.sampled_from([0.3, 0.5, 0.8])},
    "awq": {"scale_search": st.booleans()},
    "quarot": {"rotation_seed": st.sampled_from([0, 7])},
    "duquant": {
        "alpha": st.sampled_from([0.3, 0.5, 0.8]),
        "rotation_block": st.sampled_from([32, 128]),
        "rotation_steps": st.sampled_from([16, 256]),
        "rotation_pivot": st.sampled_from(["channel", "row"]),
        "rotation_seed": st.sampled_from([0, 7]),
    },
}
OF_ACTIVATION = {
    "activation_symmetric": st.booleans(),
    "activation_group_size": st.sampled_from([-1, 32, 64, 128]),
    "activation_clip_ratio": st.sampled_from([0.8, 0.9, 1.0]),
}


@st.composite
def flat_fields(draw: Any) -> dict[str, Any]:
    method = draw(st.sampled_from(sorted(METHODS)))
    rounding = draw(st.sampled_from(sorted(ROUNDINGS)))
    transform = draw(st.sampled_from(sorted(TRANSFORMS)))
    fields = {"method": method, "rounding": rounding, "transform": transform}
    fields["abits"] = draw(st.sampled_from([4, 8, 16]))
    choices = dict(COMMON)
    choices |= {"gptq": OF_GPTQ, "gptaq": OF_GPTAQ, "nearest": OF_NEAREST}[rounding]
    choices |= OF_ACTIVATION if fields["abits"] < 16 else {}
    choices |= OF_TRANSFORM.get(transform, {})
    return fields | draw(st.fixed_dictionaries({}, optional=choices))


@given(fields=flat_fields(), random=st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_and_spelled_out_defaults_do_not_matter(fields: dict[str, Any], random: Any) -> None:
    recipe = resolve(fields)
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    assert resolve(dict(shuffled)) == recipe
    spelled_out = {name: value for name, value in recipe.fields().items() if value is not None}
    assert resolve(spelled_out) == recipe
    assert tuple(recipe.fields()) == FIELDS
    assert rebuild(json.loads(json.dumps(recipe.canonical())), recipe.method) == recipe


@given(fields=flat_fields(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_field_that_changes_changes_the_canonical_form(fields: dict[str, Any], data: Any) -> None:
    recipe = resolve(fields)
    known = {**COMMON, **OF_NEAREST, **OF_GPTAQ, **OF_ACTIVATION}
    known |= {name: values for fields in OF_TRANSFORM.values() for name, values in fields.items()}
    available = sorted(name for name, value in recipe.fields().items() if value is not None and name in known)
    name = data.draw(st.sampled_from(available))
    value = data.draw(known[name])
    changed = resolve({**fields, name: value}).canonical()
    assert (changed != recipe.canonical()) == (value != recipe.fields()[name])


def test_labels_are_not_work() -> None:
    one = resolve({"method": "gptq", "wbits": 3})
    other = resolve({"method": "rtn", "rounding": "gptq", "wbits": 3})
    assert one.canonical() == other.canonical()
    assert one.fields()["method"] != other.fields()["method"]
    assert "method" not in json.dumps(one.canonical())


def test_presets() -> None:
    rtn, gptq = resolve({"method": "rtn"}), resolve({"method": "gptq"})
    assert not rtn.needs_statistics
    assert gptq.needs_statistics
    assert resolve({"method": "rtn", "transform": "smoothquant"}).needs_statistics
    assert resolve({"method": "rtn", "clip_search": True}).needs_statistics
    expected = {"wbits": 4, "abits": 16, "group_size": 128, "weight_grid": "asym_with_zero", "symmetric": False}
    for recipe in (rtn, gptq):
        assert {name: recipe.fields()[name] for name in expected} == expected
    assert rtn.fields()["act_order"] is None
    assert rtn.fields()["activation_symmetric"] is None
    assert gptq.fields()["damping"] == 0.01
    both = resolve({"method": "rtn", "wbits": 4, "abits": 4})
    assert both.fields()["activation_symmetric"] is True
    assert both.activation.grid == "sym_restricted"


RESTRICTED = {"quarot"}  # methods whose papers use the grid that cuts nothing


def test_symmetric_names_the_grid_of_the_method() -> None:
    for method in METHODS:
        symmetric = resolve({"method": method, "symmetric": True}).weights.weight_grid
        assert symmetric == ("sym_restricted" if method in RESTRICTED else "sym_full")
    assert resolve({"method": "rtn", "symmetric": False}).weights.weight_grid == "asym_with_zero"
    named = resolve({"method": "rtn", "symmetric": True, "weight_grid": "sym_restricted"})
    assert named.weights.weight_grid == "sym_restricted"
    with pytest.raises(RecipeError, match="symmetric true contradicts weight_grid asym_minmax"):
        resolve({"method": "rtn", "symmetric": True, "weight_grid": "asym_minmax"})


REFUSED = [
    ({}, "method", "method is missing; valid: awq, duquant, gptaq, gptq, quarot, rtn, smoothquant"),
    ({"method": "gtpq"}, "method", 'unknown method "gtpq"; did you mean "gptq"?'),
    ({"method": 4}, "method", "method must be a name, not 4"),
    ({"method": "rtn", "wbit": 4}, "wbit", 'unknown recipe field "wbit"; did you mean "wbits"?'),
    ({"method": "rtn", "zzz": 4}, "zzz", 'unknown recipe field "zzz"; valid: abits, '),
    ({"method": "rtn", "scale_dtype": "float32"}, "scale_dtype", "unknown recipe field"),
    ({"method": "rtn", "rounding": "nearst"}, "rounding", 'did you mean "nearest"?'),
    ({"method": "rtn", "wbits": 0}, "wbits", "wbits must be one of 2, 3, 4, 8, not 0"),
    ({"method": "rtn", "wbits": True}, "wbits", "wbits must be an integer, not True"),
    ({"method": "rtn", "wbits": 4.0}, "wbits", "wbits must be an integer, not 4.0"),
    ({"method": "rtn", "wbits": "4"}, "wbits", "wbits must be an integer, not '4'"),
    ({"method": "rtn", "wbits": None}, "wbits", "wbits must be an integer, not None"),
    ({"method": "rtn", "abits": 5}, "abits", "abits must be one of 4, 8, 16, not 5"),
    ({"method": "rtn", "group_size": 7}, "group_size", "group_size must be one of -1, 32, 64, 128, not 7"),
    ({"method": "rtn", "weight_grid": "symfull"}, "weight_grid", 'did you mean "sym_full"?'),
    ({"method": "rtn", "symmetric": "yes"}, "symmetric", "symmetric must be true or false, not 'yes'"),
    ({"method": "rtn", "act_order": True}, "act_order", "act_order has no effect with rounding nearest"),
    ({"method": "gptq", "alpha": 0.5}, "alpha", "alpha has no effect with transform identity"),
    ({"method": "gptq", "act_order": 1}, "act_order", "act_order must be true or false, not 1"),
    ({"method": "gptq", "damping": 0}, "damping", "damping must be above 0 and at most 10, not 0.0"),
    ({"method": "gptq", "damping": float("nan")}, "damping", "damping must be above 0"),
    ({"method": "gptq", "damping": "1e-2"}, "damping", "YAML reads 1e-2 as text"),
    ({"method": "rtn", "abits": 8, "activation_clip_ratio": 1.5}, "activation_clip_ratio", "at most 1"),
    ({"method": "rtn", "activation_symmetric": True}, "activation_symmetric", "no effect with abits 16"),
]


@pytest.mark.parametrize(("fields", "field", "message"), REFUSED)
def test_refusals_are_one_line_that_names_the_field(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(fields)
    assert message in str(caught.value)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_group_sizes_are_checked_against_layers() -> None:
    recipe = resolve({"method": "rtn", "abits": 8, "group_size": 64, "activation_group_size": 128})
    recipe.check_features(256)
    with pytest.raises(RecipeError, match=r"^transform quarot: no Hadamard matrix of order 92 "):
        resolve({"method": "quarot"}).check_features(92)
    with pytest.raises(RecipeError, match=r"^rotation_block 128 does not divide the 96 .* sizes that do: 16, 32"):
        resolve({"method": "duquant"}).check_features(96)
    with pytest.raises(RecipeError, match="activation_group_size 128 does not divide the 192"):
        recipe.check_features(192)
    with pytest.raises(RecipeError, match=r"^group_size 64 does not divide the 96"):
        recipe.check_features(96)


def test_every_registered_choice_is_a_documented_frozen_dataclass() -> None:
    for registry in (TRANSFORMS, ROUNDINGS, ALLOCATIONS):
        for name, choice in registry.items():
            assert name == choice.name
            assert dataclasses.is_dataclass(choice)
            assert choice.__doc__ and not choice.__doc__.startswith(f"{choice.__name__}(")
            with pytest.raises(dataclasses.FrozenInstanceError):
                choice().name = "other"  # type: ignore[misc]  # the assignment is what must fail
    for name, preset in METHODS.items():
        assert isinstance(resolve({"method": name}), Recipe)
        assert preset.summary and "\n" not in preset.summary
