"""Shared pieces: a tiny random checkpoint with tokenizer, tasks and calibration text, and a grid over them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from models.checkpoint import save_checkpoint
from models.families import LLADA
from models.spec import ModelSpec
from models.transformer import MaskedDiffusionLM

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

WORDS = [f"w{i}" for i in range(60)]
CONFIG: dict[str, Any] = {
    "model_type": "llada", "d_model": 64, "n_layers": 3, "n_heads": 4, "mlp_hidden_size": 128, "vocab_size": 62,
    "mask_token_id": 61, "eos_token_id": 60, "max_sequence_length": 64,
}  # fmt: skip
TASK: dict[str, Any] = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "{{question}}",
}


def write_model(folder: Path, **changes: Any) -> Path:
    """A random LLaDA-style checkpoint of 3 blocks with a word-level tokenizer."""
    config = {**CONFIG, **changes}
    torch.manual_seed(0)
    model = MaskedDiffusionLM(ModelSpec(**LLADA.spec_fields(config)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(model, folder, config)
    vocabulary = {word: i for i, word in enumerate([*WORDS, "<|endoftext|>", "<|mdm_mask|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_workspace(root: Path) -> Path:
    """model/, calibration.jsonl, choice.yaml (multiple choice) and write.yaml (generation) with their data."""
    rng = random.Random(0)

    def words(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    write_model(root / "model")
    write_jsonl(root / "calibration.jsonl", [{"text": words(40)} for _ in range(100)])
    choices = [{"question": words(8), "choices": [words(3) for _ in range(4)], "gold": i % 4} for i in range(24)]
    write_jsonl(root / "choice.jsonl", choices)
    write_jsonl(root / "write.jsonl", [{"question": words(4 + i % 5), "answer": words(1)} for i in range(16)])
    for name, extra in {
        "choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
        "write": {
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": [" w3"], "max_gen_toks": 8},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    }.items():
        task = {"task": name, **TASK, "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}, **extra}
        (root / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return root


def tiny_grid(root: Path, **changes: Any) -> dict[str, Any]:
    """A grid over a workspace: seven cells with every kind of task, in seconds."""
    calibration = {"data": str(root / "calibration.jsonl"), "samples": 12, "held_out": 2, "length": 32}
    gptq = {"method": "gptq", "wbits": 2, "group_size": 32}
    return {
        "name": "tiny",
        "models": [{"model": str(root / "model")}],
        "methods": [
            {"method": "rtn", "wbits": [4, 2], "group_size": 32},
            {**gptq, "calibration": ["masked", "visible"]},
            {**gptq, "propagation": "sequential"},
            {"method": "rtn", "wbits": 4, "abits": 4, "group_size": 32},
        ],
        "calibration": {"masked": calibration, "visible": {**calibration, "masking": "none"}},
        "tasks": [
            {"task": str(root / "choice.yaml"), "shards": 2},
            {"task": str(root / "write.yaml"), "shards": 2},
        ],
        "evaluation": {"samples": 4, "batch_size": 4},
        **changes,
    }


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of `write_workspace`, made once; read-only by convention."""
    return write_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def tiny_grid_text(workspace: Path) -> str:
    """The tiny grid as YAML."""
    return yaml.safe_dump(tiny_grid(workspace), sort_keys=False)


@pytest.fixture
def grid_file(workspace: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny grid, with top-level keys replaced, and return its path."""

    def write(name: str = "grid.yaml", **changes: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(tiny_grid(workspace, **changes), sort_keys=False))
        return path

    return write
