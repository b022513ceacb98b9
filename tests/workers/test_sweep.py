"""One run after another on one store: nothing is computed twice, damage is healed, a bad cell fails alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from storage.artifacts import Store
from storage.warehouse import query

Write = Callable[..., Path]
Rows = dict[str, list[dict[str, Any]]]


def test_the_second_submit_does_no_work(
    tools: SimpleNamespace, grid_file: Write, store: Path, undisturbed: Rows
) -> None:
    summary, heard = tools.run_local(grid_file(), store)
    assert (summary.computed, heard.started) == (0, [])
    assert summary.reused > 50
    assert tools.contents(store) == undisturbed


def test_one_more_recipe_reuses_calibration_and_full_precision(
    tools: SimpleNamespace, grid_file: Write, store: Path
) -> None:
    path = grid_file()
    data = yaml.safe_load(path.read_text())
    data["methods"].append({"method": "gptq", "wbits": 3, "group_size": 32})
    path.write_text(yaml.safe_dump(data))
    _, heard = tools.run_local(path, store)
    assert sorted(heard.started) == ["evaluate"] * 4 + ["quantize"] * 3 + ["score"] * 2


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, to run on or to break."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize("shards", [1, 9])
def test_shards_change_no_bit(
    tools: SimpleNamespace, grid_file: Write, tmp_path: Path, workspace: Path, shards: int, undisturbed: Rows
) -> None:
    tasks = [{"task": str(workspace / f"{name}.yaml"), "shards": shards} for name in ("choice", "write")]
    tools.run_local(grid_file(tasks=tasks), tmp_path / "store")
    assert tools.contents(tmp_path / "store") == undisturbed


def test_every_sample_is_there_once(undisturbed: Rows) -> None:
    keys = [(r["recipe"], r["task"], r["doc_id"], r["choice"]) for r in undisturbed["samples"]]
    assert len(keys) == 7 * (24 * 4 + 16)
    # Three cells share one recipe (calibrated three ways), so their samples share a recipe hash.
    assert len(set(keys)) == 5 * (24 * 4 + 16)


def test_scores_follow_from_samples(undisturbed: Rows) -> None:
    """Accuracy of the full-precision cell recomputed from its log-likelihoods."""
    rows = [r for r in undisturbed["samples"] if r["recipe"] is None and r["task"] == "choice"]
    right = 0
    for doc in range(24):
        likelihoods = {r["choice"]: r["loglikelihood"] for r in rows if r["doc_id"] == doc}
        right += max(likelihoods, key=likelihoods.__getitem__) == doc % 4
    score = next(r for r in undisturbed["scores"] if r["method"] == "full_precision" and r["metric"] == "acc")
    assert score["value"] == pytest.approx(right / 24)
    p = right / 24
    assert score["stderr"] == pytest.approx(math.sqrt(p * (1 - p) / 23))
    assert (score["delta"], score["flips"], score["n"]) == (0, 0, 24)


def test_bits_count_all_metadata(undisturbed: Rows) -> None:
    """2 bits, an fp16 scale and a 2-bit zero per group of 32."""
    found = {(r["method"], r["wbits"]): r["linear_bits"] for r in undisturbed["scores"]}
    assert found["gptq", 2] == pytest.approx(2 + (16 + 2) / 32)
    assert found["rtn", 4] == pytest.approx(4 + (16 + 4) / 32)
    assert found["full_precision", 16] == 16


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "one bit flipped": lambda data: bytes([*data[:-9], data[-9] ^ 1, *data[-8:]]),
    "zeroed": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["block.safetensors", "samples.parquet", "scores.parquet", "manifest.json"])
def test_damage_is_found_quarantined_and_recomputed(
    tools: SimpleNamespace, grid_file: Write, store: Path, damage: str, name: str, undisturbed: Rows
) -> None:
    holder = sorted(store.glob(f"objects/*/*/{'layers.parquet' if name == 'manifest.json' else name}"))[3]
    victim = holder.with_name(name)
    victim.write_bytes(DAMAGE[damage](victim.read_bytes()))
    _, heard = tools.run_local(grid_file(), store)
    assert len(heard.started) == 1
    assert len(list((store / "quarantine").iterdir())) == 1
    assert tools.contents(store) == undisturbed


def test_a_poisoned_cell_fails_alone(
    tools: SimpleNamespace, grid_file: Write, tmp_path: Path, workspace: Path
) -> None:
    """NaN in the weights of one of two models: its quantized cells fail, naming the layer; the other's do not."""
    poisoned = tmp_path / "poisoned"
    poisoned.mkdir()
    for file in (workspace / "model").iterdir():
        (poisoned / file.name).write_bytes(file.read_bytes())
    state = load_file(poisoned / "model.safetensors")
    state["model.transformer.blocks.1.up_proj.weight"][3, 5] = torch.nan
    save_file(state, poisoned / "model.safetensors")
    models = [{"model": str(workspace / "model")}, {"model": str(poisoned)}]
    summary, _ = tools.run_local(grid_file(models=models), tmp_path / "store")
    assert summary.failures
    assert all("poisoned" in f.task for f in summary.failures)
    assert any("block 1 up_proj" in f.error for f in summary.failures)
    done = query(
        Store(tmp_path / "store"), "select model, count(distinct cell) n from scores group by 1"
    ).to_pylist()
    assert {row["model"]: row["n"] for row in done}["model"] == 7
