from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.catalog import bundled_tasks, read_task
from evaluation.spec import Canvas, EvaluationSettings, TaskError, list_tasks, resolve_task


def test_planning_loads_neither_torch_nor_lm_eval() -> None:
    code = (
        "import sys; from evaluation.spec import *; [resolve_task(t) for t in list_tasks()];"
        "sys.exit(any(m in sys.modules for m in ('torch', 'lm_eval', 'datasets', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bundled_files_are_named_for_their_tasks() -> None:
    assert {"facts", "sense", "arithmetic", "code"} <= set(list_tasks())
    assert all(read_task(name).name == name for name in bundled_tasks())


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(TaskError, match="unknown task 'arithmetik': did you mean 'arithmetic'"):
        resolve_task("arithmetik")


def test_registry_names_are_found_and_groups_refused() -> None:
    assert resolve_task("gsm8k").kind == "generate"
    assert resolve_task("arc_challenge").kind == "loglikelihood"  # known from the included file only
    assert resolve_task("arc_challenge").path == ""
    with pytest.raises(TaskError, match="group"):
        resolve_task("mmlu")
    with pytest.raises(TaskError, match="runs code"):
        resolve_task("humaneval")
    with pytest.raises(TaskError, match="without few-shot"):
        resolve_task("facts", shots=2)


def test_content_follows_every_file(tasks: Path) -> None:
    def content() -> str:
        return resolve_task(str(tasks / "colours.yaml")).content

    seen = {content(), content()}
    assert len(seen) == 1
    for name in ("colours.yaml", "_shared.yaml", "data/colours.jsonl"):
        (tasks / name).write_text((tasks / name).read_text() + "\n")
        seen.add(content())
    assert len(seen) == 4
    moved = tasks.parent / "elsewhere"
    tasks.rename(moved)
    assert resolve_task(str(moved / "colours.yaml")).content in seen  # the place is no part of it


def test_functions_are_hashed_and_not_run(tasks: Path) -> None:
    (tasks / "helper.py").write_text("raise SystemExit('ran')\n")
    with (tasks / "colours.yaml").open("a") as file:
        file.write("process_docs: !function helper.process\n")
    before = resolve_task(str(tasks / "colours.yaml")).content
    (tasks / "helper.py").write_text("raise SystemExit('ran again')\n")
    assert resolve_task(str(tasks / "colours.yaml")).content != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: colours.yaml\ntask: colours\n", "includes itself"),
        ("task: [a\n", "not valid YAML"),
        ("- a\n", "not a mapping"),
        ("task: x\ndataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}\n", "does not exist"),
        ("task: x\noutput_type: loglikelihood_rolling\n", "whole texts"),
        ("task: x\nclass: !function a.B\n", "written in Python"),
    ],
)
def test_bad_definitions_are_one_line(tasks: Path, text: str, message: str) -> None:
    (tasks / "colours.yaml").write_text(text)
    with pytest.raises(TaskError, match=message) as caught:
        resolve_task(str(tasks / "colours.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"estimator": "exact"}, "estimator"),
        ({"samples": 0}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"samples": True}, "samples"),
        ({"samples": None}, "samples"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"cfg_scale": float("nan")}, "cfg_scale"),
        ({"cfg_scale": float("inf")}, "cfg_scale"),
        ({"gen_length": 32, "block_length": 12}, "block_length"),
        ({"gen_length": 32, "block_length": 64}, "block_length"),
        ({"gen_length": 32, "block_length": 8, "steps": 6}, "steps"),
        ({"gen_length": 48}, "block_length"),
        ({"remasking": "lowconfidence"}, "remasking"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_settings_name_their_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(TaskError) as caught:
        EvaluationSettings(**fields)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_canvas_defaults() -> None:
    assert EvaluationSettings().canvas(16) == Canvas(16, 16, 16)
    assert EvaluationSettings().canvas(256) == Canvas(256, 32, 256)
    assert EvaluationSettings(gen_length=64, block_length=16, steps=32).canvas(256) == Canvas(64, 16, 32)


def test_settings_of_one_kind_leave_the_other_alone() -> None:
    plain = EvaluationSettings()
    sampler = EvaluationSettings(gen_length=32, temperature=1)
    estimator = EvaluationSettings(samples=64)
    assert plain.for_kind("loglikelihood") == sampler.for_kind("loglikelihood")
    assert plain.for_kind("generate") == estimator.for_kind("generate")
    assert plain.for_kind("generate") != sampler.for_kind("generate")
    assert plain.for_kind("loglikelihood") != estimator.for_kind("loglikelihood")
    assert plain.for_requests() == sampler.for_requests() == estimator.for_requests()
    assert type(sampler.for_kind("generate")["temperature"]) is float  # 1 and 1.0 must be one key
