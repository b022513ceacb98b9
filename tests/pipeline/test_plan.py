"""Grid -> cells -> task graph: products, sharing, what changes a key and what does not, and bad input."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.plan import Plan, make_plan
from pipeline.yamlfile import GridError

Write = Callable[..., Path]


def kinds(plan: Plan) -> Counter[str]:
    return Counter(task.kind for task in plan.tasks.values())


def test_product_baseline_and_sharing(grid_file: Write) -> None:
    plan = make_plan(str(grid_file()))
    described = [(c.columns()["method"], c.columns()["wbits"], c.columns().get("abits")) for c in plan.cells]
    assert described[0] == ("full_precision", 16, 16)
    assert described[1:] == [
        ("rtn", 4, 16), ("rtn", 2, 16), ("gptq", 2, 16), ("gptq", 2, 16), ("gptq", 2, 16), ("rtn", 4, 4),
    ]  # fmt: skip
    # 3 blocks: one chain per calibration, and one more for the sequential recipe.
    assert kinds(plan) == {
        "calibrate": 3 * 3, "quantize": 6 * 3, "requests": 2, "evaluate": 7 * 2 * 2, "score": 7 * 2,
    }  # fmt: skip


def test_methods_share_one_calibration(grid_file: Write) -> None:
    methods = [{"method": ["rtn", "gptq"], "wbits": [2, 3, 4, 8], "group_size": [32, 64, -1]}]
    plan = make_plan(str(grid_file(methods=methods)))
    assert len(plan.cells) == 1 + 24
    assert kinds(plan)["calibrate"] == 3


def test_a_method_that_ignores_calibration_is_one_cell(grid_file: Write) -> None:
    methods = [{"method": "rtn", "wbits": 4, "group_size": 32, "calibration": ["masked", "visible"]}]
    assert len(make_plan(str(grid_file(methods=methods))).cells) == 2


def test_include_exclude_and_overrides(grid_file: Write, workspace: Path) -> None:
    methods = [{"method": ["rtn", "gptq"], "wbits": [2, 4], "group_size": 64}]
    models = [{"model": str(workspace / "model"), "overrides": {"group_size": 32, "damping": 0.1}}]
    extra = {"method": "gptq", "wbits": 8, "group_size": 64}
    drop = [{"method": "rtn", "wbits": [2]}]
    plan = make_plan(str(grid_file(methods=methods, models=models, include=[extra], exclude=drop)))
    found = {
        tuple(c.columns().get(k) for k in ("method", "wbits", "group_size", "damping")) for c in plan.cells[1:]
    }
    assert found == {("rtn", 4, 32, None), ("gptq", 2, 32, 0.1), ("gptq", 4, 32, 0.1), ("gptq", 8, 32, 0.1)}


def test_one_checkpoint_under_two_names(grid_file: Write, workspace: Path) -> None:
    """Full precision is one cell; the recipes that overrides make different are two."""
    folder = str(workspace / "model")
    models = [folder, {"model": folder, "name": "again", "overrides": {"group_size": 64}}]
    plan = make_plan(str(grid_file(models=models, methods=[{"method": "rtn", "wbits": 4, "group_size": 32}])))
    found = [(c.columns()["method"], c.columns().get("group_size")) for c in plan.cells]
    assert found == [("full_precision", None), ("rtn", 32), ("rtn", 64)]
    assert {plan.baseline(c).id for c in plan.cells} == {plan.cells[0].id}


def test_two_checkpoints_under_one_name_are_refused(grid_file: Write, workspace: Path) -> None:
    models = [str(workspace / "model"), {"model": "bundled", "name": "model"}]
    with pytest.raises(GridError, match="another model is called 'model'"):
        make_plan(str(grid_file(models=models)))


def test_threads_are_part_of_what_is_computed(grid_file: Write) -> None:
    one = make_plan(str(grid_file()))
    two = make_plan(str(grid_file("b.yaml", resources={"evaluate": {"cpus": 2}})))
    changed = {two.tasks[key].kind for key in set(two.tasks) - set(one.tasks)}
    assert changed == {"evaluate", "score"}


ODD = {"a list inside itself": "&a [*a]", "a control character": "name: \x01", "no such date": "name: 2024-02-30"}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_yaml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(GridError, match="not valid YAML"):
        make_plan(str(tmp_path / "grid.yaml"))


def test_evaluation_axes_have_their_own_baselines(grid_file: Write) -> None:
    plan = make_plan(str(grid_file(methods=[{"method": "rtn", "group_size": 32}], evaluation={"samples": [2, 4]})))
    assert [c.recipe is None for c in plan.cells] == [True, True, False, False]
    # Generation does not depend on the number of likelihood samples: its answers are shared.
    tasks = Counter(t.task.name for t in plan.tasks.values() if t.kind == "evaluate")  # type: ignore[attr-defined]
    assert tasks == {"choice": 2 * 2 * 2, "write": 2 * 2}


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(k, shuffled(v, rng)) for k, v in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(v, rng) for v in value] if isinstance(value, list) else value


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_reordering_the_yaml_changes_no_key(grid_file: Write, rng: random.Random) -> None:
    path = grid_file()
    data = yaml.safe_load(path.read_text())
    for entry in data["methods"]:  # without it the first calibration of the file is meant, and order matters
        entry.setdefault("calibration", "masked")
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    plan = make_plan(str(path))
    mixed = shuffled(data, rng)
    for name in ("methods", "tasks"):
        rng.shuffle(mixed[name])
    path.write_text(yaml.safe_dump(mixed, sort_keys=False))
    again = make_plan(str(path))
    assert set(again.tasks) == set(plan.tasks)
    assert again.id == plan.id


CHANGES: dict[tuple[Any, ...], Any] = {
    ("methods", 2, "wbits"): 3,
    ("methods", 2, "group_size"): 64,
    ("methods", 2, "damping"): 0.1,
    ("methods", 2, "act_order"): True,
    ("methods", 2, "symmetric"): True,
    ("methods", 2, "propagation"): "parallel",
    ("methods", 3, "abits"): 8,
    ("methods", 3, "activation_clip_ratio"): 0.9,
    ("calibration", "masked", "samples"): 13,
    ("calibration", "masked", "held_out"): 3,
    ("calibration", "masked", "length"): 31,
    ("calibration", "masked", "seed"): 1,
    ("calibration", "masked", "masking"): "none",
    ("calibration", "masked", "prefix_ratio"): 0.25,
    ("calibration", "masked", "packing"): "rows",
    ("tasks", 0, "limit"): 10,
    ("tasks", 0, "shards"): 3,
    ("evaluation", "samples"): 5,
    ("evaluation", "estimator"): "enumerate",
    ("evaluation", "seed"): 1,
    ("evaluation", "batch_size"): 3,
    ("evaluation", "steps"): 4,
    ("evaluation", "temperature"): 0.5,
    ("evaluation", "remasking"): "random",
    ("models", 0, "dtype"): "bfloat16",
}


@pytest.mark.parametrize("place", CHANGES, ids=lambda p: ".".join(map(str, p)))
def test_every_field_that_matters_changes_keys(grid_file: Write, place: tuple[Any, ...]) -> None:
    path = grid_file()
    plan = make_plan(str(path))
    data = copy.deepcopy(yaml.safe_load(path.read_text()))
    spot = data
    for part in place[:-1]:
        spot = spot[part]
    spot[place[-1]] = CHANGES[place]
    path.write_text(yaml.safe_dump(data))
    changed = make_plan(str(path))
    assert set(changed.scores.values()) != set(plan.scores.values())
    assert changed.id != plan.id


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"resources": {"evaluate": {"replicas": 7}}}, {"store": "x"}]
)
def test_what_does_not_matter_changes_no_key(grid_file: Write, changes: dict[str, Any]) -> None:
    assert set(make_plan(str(grid_file(**changes))).tasks) == set(make_plan(str(grid_file("b.yaml"))).tasks)


def test_other_weights_are_another_model(grid_file: Write, workspace: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    copy_of = tmp_path / "model"
    copy_of.mkdir()
    for file in (workspace / "model").iterdir():
        (copy_of / file.name).write_bytes(file.read_bytes())
    same = make_plan(str(grid_file(models=[{"model": str(copy_of), "name": "model"}])))
    assert set(same.tasks) == set(make_plan(str(grid_file())).tasks)
    state = load_file(copy_of / "model.safetensors")
    state["model.transformer.ln_f.weight"] += torch.tensor(0.01, dtype=torch.float16)
    save_file(state, copy_of / "model.safetensors")
    other = make_plan(str(grid_file(models=[{"model": str(copy_of), "name": "model"}])))
    shared = set(other.tasks) & set(same.tasks)
    assert {other.tasks[key].kind for key in shared} == {"requests"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"metods": []}, "metods: unknown key, did you mean 'methods'?"),
    "wrong type": ({"tasks": 3}, "tasks: input should be a valid list"),
    "unknown method": ({"methods": [{"method": "gptp"}]}, "gptq"),
    "unknown recipe field": ({"methods": [{"method": "gptq", "dampening": 1}]}, "damping"),
    "idle recipe field": ({"methods": [{"method": "rtn", "act_order": True}]}, "act_order has no effect"),
    "gptaq": ({"methods": [{"method": "gptaq", "group_size": 32}]}, "use rounding gptq"),
    "rotation block": ({"methods": [{"method": "duquant", "rotation_block": 128}]}, "sizes that do: 16, 32, 64"),
    "group size": ({"methods": [{"method": "rtn", "group_size": 128}]}, "128"),
    "unknown calibration": (
        {"methods": [{"method": "gptq", "calibration": "maskd", "group_size": 32}]},
        "'masked'",
    ),
    "unknown task": ({"tasks": ["fcats"]}, "facts"),
    "unknown model": ({"models": ["no-such-model"]}, "checkpoint folder"),
    "empty list": ({"methods": [{"method": "rtn", "wbits": []}]}, "empty list"),
    "unknown setting": ({"evaluation": {"sample": 3}}, "samples"),
    "setting out of range": ({"evaluation": {"samples": 0}}, "samples"),
    "missing calibration file": ({"calibration": {"m": {"data": "nowhere.txt"}}}, "no calibration file"),
    "duplicate task": ({"tasks": ["facts", {"task": "facts", "limit": 3}]}, "'facts' is listed twice"),
    "exclude key": ({"exclude": [{"metod": "rtn"}]}, "did you mean 'method'?"),
    "exclude nothing": ({"exclude": [{"wbits": "4"}]}, "matches no cell"),
    "exclude all": ({"exclude": [{}]}, "rule is empty"),
    "no calibration": ({"calibration": {}}, "calibration"),
    "calibration type": ({"methods": [{"method": "gptq", "group_size": 32, "calibration": {"a": 1}}]}, "unknown"),
    "gpus for some": ({"resources": {"evaluate": {"gpus": 1}}}, "give gpus to calibrate, quantize as well"),
    "propagation": ({"methods": [{"method": "rtn", "group_size": 32, "propagation": "serial"}]}, "parallel"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_one_line_with_its_place(grid_file: Write, case: str) -> None:
    changes, hint = BAD[case]
    path = grid_file(**changes)
    with pytest.raises(GridError) as caught:
        make_plan(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    assert message.removeprefix(f"{path}:").split(":")[0].isdigit()
    assert hint in message
    assert "\n" not in message
