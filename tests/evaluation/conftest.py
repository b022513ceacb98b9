"""A tiny random model of each family, a word tokenizer and two small tasks, all made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from models.checkpoint import save_checkpoint
from models.spec import ModelSpec
from models.transformer import MaskedDiffusionLM

SPECIAL = ["<|endoftext|>", "<|mask|>", "<|begin|>"]
WORDS = "the a cat dog sky sun mat is on in red blue green four five six one two plus equals who so ?"
VOCABULARY = [*SPECIAL, *WORDS.split()]
EOS, MASK, BOS = 0, 1, 2


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., MaskedDiffusionLM]:
    """tiny(family, seed, eos_bias): random weights, predictions sharp enough to have no near-ties."""

    def make(family: str = "llada", seed: int = 0, eos_bias: float = 0.0) -> MaskedDiffusionLM:
        torch.manual_seed(seed)
        shift = family == "dream"
        spec = ModelSpec(
            family=family,
            hidden_size=32,
            layers=2,
            heads=2,
            kv_heads=1 if shift else 2,
            head_dim=16,
            intermediate_size=48,
            vocab_size=len(VOCABULARY),
            norm_eps=1e-5,
            rope_theta=1e4,
            mask_id=MASK,
            eos_id=EOS,
            pad_id=EOS,
            bos_id=BOS if shift else None,
            shift=shift,
            qkv_bias=shift,
            tied=False,
            context_length=48,
        )
        model = MaskedDiffusionLM(spec).requires_grad_(False).eval()
        for block in model.blocks:
            for parameter in block.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(2.0)
        model.head.weight.normal_(std=0.6)
        # Some final-norm direction that EOS likes, so that answers end early now and then.
        model.head.weight[EOS] += eos_bias * model.head.weight.mean(0)
        return model

    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., MaskedDiffusionLM]) -> Path:
    """A checkpoint folder in LLaDA's layout, with its tokenizer."""
    path = tmp_path_factory.mktemp("checkpoint")
    model = tiny()
    spec = model.spec
    config = {
        "model_type": "llada",
        "d_model": spec.hidden_size,
        "n_layers": spec.layers,
        "n_heads": spec.heads,
        "mlp_hidden_size": spec.intermediate_size,
        "vocab_size": spec.vocab_size,
        "embedding_size": spec.vocab_size,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "rope_theta": spec.rope_theta,
        "max_sequence_length": spec.context_length,
    }
    save_checkpoint(model, path, config, dtype=torch.float32)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in SPECIAL])
    tokenizer.save(str(path / "tokenizer.json"))
    return path


MULTIPLE_CHOICE = """\
include: _shared.yaml
task: colours
dataset_kwargs: {data_files: {test: data/colours.jsonl}}
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
GENERATION = """\
include: _shared.yaml
task: sums
dataset_kwargs: {data_files: {test: data/sums.jsonl}}
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["?"], max_gen_toks: 6}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: first-word, filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]}
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with colours.yaml (multiple choice, 20 documents) and sums.yaml (generation, 9 documents)."""
    path = tmp_path / "tasks"
    (path / "data").mkdir(parents=True)
    nouns = ["cat", "dog", "sky", "sun", "mat"]
    colours = [
        {
            "question": f"who is the {noun}" + " on the mat" * (i % 3),
            "choices": ["red", "blue", "green in the sky", "on a mat so red"],
            "gold": (i + len(noun)) % 4,
        }
        for i in range(4)
        for noun in nouns
    ]
    numbers = ["one", "two", "four"]
    sums = [
        {"question": f"{a} plus {b} equals" + " so" * (a == b), "answer": "six"} for a in numbers for b in numbers
    ]
    for name, rows in (("colours", colours), ("sums", sums)):
        (path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "_shared.yaml").write_text("dataset_path: json\ntest_split: test\nfewshot_split: test\n")
    (path / "colours.yaml").write_text(MULTIPLE_CHOICE)
    (path / "sums.yaml").write_text(GENERATION)
    return path


@pytest.fixture
def colours_docs(tasks: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tasks / "data" / "colours.jsonl").read_text().splitlines()]
