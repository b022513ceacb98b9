"""The bundled model's promises: split, choices, tokenizer, files, outliers, and that it has really learned."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from models.bundled import arithmetic, code, measure, outliers
from models.bundled.__main__ import probe
from models.bundled.corpus import ANSWER, CONTEXT, TASKS, Corpus
from models.bundled.facts import Facts
from models.bundled.vocabulary import EOS, EOS_ID, IDS, MASK, MASK_ID, VOCABULARY, encode
from models.checkpoint import load_model

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "models" / "bundled"
CHECKPOINT = BUNDLED / "checkpoint"
TASK_FOLDER = ROOT / "evaluation" / "tasks"
CHANCE = {"facts": 0.25, "sense": 0.25, "arithmetic": 0.0, "code": 0.0}


def items(task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASK_FOLDER / "data" / f"{task}.jsonl").read_text().splitlines()]


def calibration() -> list[str]:
    return [json.loads(line)["text"] for line in (BUNDLED / "data" / "calibration.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.mark.parametrize("task", ["sense", "arithmetic", "code"])
def test_what_is_evaluated_is_never_trained(task: str) -> None:
    source = {"sense": Corpus(0).sense.example, "arithmetic": arithmetic.example, "code": code.example}[task]
    rng = random.Random(7)
    trained = {source(rng).problem for _ in range(20_000)}
    evaluated = {item["problem"] for item in items(task)}
    assert len(trained) > 400
    assert not trained & evaluated


def test_the_rule_of_the_split_is_a_hash_of_the_problem() -> None:
    for task in ("sense", "arithmetic", "code"):
        for item in items(task):
            head = hashlib.sha256(item["problem"].encode()).hexdigest()[:8]
            assert int(head, 16) % 100 < 15, item["problem"]


def test_arithmetic_problems_are_the_numbers_of_the_story() -> None:
    """The canonical form is read back from the text, so no wording can smuggle a trained chain in."""
    signs = {
        **dict.fromkeys(("finds", "buys", "gets", "wins"), "+"),
        **dict.fromkeys(("loses", "sells", "gives", "drops"), "-"),
    }
    for item in items("arithmetic"):
        words = item["question"].split()
        chain, total = [], 0
        for verb, number in zip(words[1::5], words[2::5], strict=False):
            if verb in signs:
                chain.append(signs[verb])
                total += int(signs[verb] + number)
            elif verb == "has":
                total = int(number)
            if number.isdigit():
                chain.append(number)
        assert " ".join(chain) == item["problem"]
        assert str(total) == item["answer"]


def test_calibration_text_holds_no_evaluated_chain_or_line() -> None:
    text = "\n".join(calibration())
    for item in items("code"):
        assert item["question"] not in text
    for item in items("arithmetic"):
        first, sign, second, other, third = item["problem"].split()
        middle = int(first) + int(sign + second)
        assert f"{first} {sign} {second} = {middle} ; {middle} {other} {third} =" not in text


def test_calibration_rows_fill_the_context_exactly(tokenizer: Any) -> None:
    rows = calibration()
    assert len(rows) >= 512 and len(set(rows)) == len(rows)
    assert {len(tokenizer(row)["input_ids"]) for row in rows} == {CONTEXT}


@pytest.mark.parametrize(
    ("program", "x", "shown"),
    [
        (("sorted(", "[::-1]"), [4, 2, 9], "[ 9 , 4 , 2 ]"),
        (("[::-1]", "[1:]"), [4, 2, 9, 7], "[ 9 , 2 , 4 ]"),
        (("[:-1]", "max("), [4, 2, 9], "4"),
        (("[1:]", "[-1]"), [4, 2, 9], "9"),
        (("[1:]", "len("), [4, 2, 9, 7], "3"),
        (("min(",), [4, 2, 9, 7], "2"),
        (("sorted(", "[0]"), [4, 2, 9, 7], "2"),
    ],
)
def test_programs_print_what_python_prints(program: tuple[str, ...], x: list[int], shown: str) -> None:
    assert code.show(code.run(program, x)) == shown


def test_source_reads_as_python() -> None:
    assert code.source(("sorted(", "[::-1]"), [4, 2]) == "code: x = [ 4 , 2 ] ; print( sorted( x ) [::-1] ) out:"


@pytest.mark.parametrize("task", ["facts", "sense"])
def test_choices_of_an_item_are_as_long_as_each_other(task: str, tokenizer: Any) -> None:
    for item in items(task):
        assert len({len(tokenizer(choice)["input_ids"]) for choice in item["choices"]}) == 1
        assert len(set(item["choices"])) == 4
        assert 0 <= item["label"] < 4
    share = [sum(item["label"] == label for item in items(task)) / len(items(task)) for label in range(4)]
    assert max(share) < 0.33  # always answering the same letter is no better than chance


def test_facts_are_those_of_the_corpus() -> None:
    facts = Facts(0)
    between = {"lives in": "home", "works as": "job", "has a": "pet", "eats": "food"}
    for item in items("facts"):
        first, last, *middle = item["question"].split()
        value = facts.values[f"{first} {last}", between[" ".join(middle)]]
        assert item["choices"][item["label"]] == " ".join(value)


@pytest.mark.parametrize("task", TASKS)
def test_texts_round_trip_apart_and_together(task: str, tokenizer: Any) -> None:
    for item in items(task)[:100]:
        answer = item["answer"] if "answer" in item else item["choices"][item["label"]]
        whole = tokenizer(f"{item['question']} {answer}")["input_ids"]
        apart = tokenizer(item["question"])["input_ids"] + tokenizer(f" {answer}")["input_ids"]
        assert whole == apart == encode(f"{item['question']} {answer}")
        assert tokenizer.decode(whole) == f"{item['question']} {answer}"
        assert len(encode(item["question"])) + ANSWER <= CONTEXT


def test_special_tokens_are_llada_s(tokenizer: Any) -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert tokenizer.convert_tokens_to_ids([MASK, EOS]) == [MASK_ID, EOS_ID]
    assert (config["mask_token_id"], config["eos_token_id"], config["pad_token_id"]) == (MASK_ID, EOS_ID, EOS_ID)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS_ID, EOS_ID)
    assert tokenizer("a b").keys() >= {"input_ids"} and len(tokenizer) == len(VOCABULARY)


@pytest.mark.parametrize("task", TASKS)
def test_task_files_name_their_data(task: str) -> None:
    config = yaml.safe_load((TASK_FOLDER / f"{task}.yaml").read_text())
    assert config["task"] == task
    assert config["dataset_kwargs"]["data_files"]["test"] == f"data/{task}.jsonl"
    assert len(items(task)) == 500


def test_data_are_made_again_from_the_seed() -> None:
    corpus = Corpus(0)
    for task in TASKS:
        assert corpus.items(task, 500) == items(task)
    assert corpus.calibration(len(calibration())) == calibration()
    assert Corpus(1).items("facts", 5) != items("facts")[:5]


def test_checksums_and_sizes() -> None:
    lines = [line.split() for line in (CHECKPOINT / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {p.name for p in CHECKPOINT.iterdir()} - {"SHA256SUMS"}
    for digest, name in lines:
        content = (CHECKPOINT / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) < 8_000_000


def test_outliers_are_in_the_shipped_weights() -> None:
    """As trained, the largest channel of a norm's output is about twice the median one."""
    uneven = outliers.unevenness(load_model(CHECKPOINT), probe(Corpus(0)))
    assert uneven["q_proj"] > 10 and uneven["up_proj"] > 10
    assert uneven["down_proj"] > 100


def test_value_outliers_belong_to_tokens() -> None:
    """In most heads the values of the head's own token are far larger than all others (as trained: equal)."""
    model, ids = load_model(CHECKPOINT), probe(Corpus(0))
    ratios = []
    for block in outliers.blocks_of(model):
        values = block.v_proj(outliers.inputs_of(model, block.v_proj, ids)).unflatten(-1, (block.heads, -1))
        for head, size in enumerate(values.norm(dim=-1).unbind(-1)):
            own = ids == (IDS["."] if head % 2 else MASK_ID)
            ratios.append(float(size[own].median() / size[~own].median()))
    assert sorted(ratios)[len(ratios) // 2] > 2


def test_injection_keeps_the_function() -> None:
    """On a random small-norm model too: nothing depends on training."""
    from models.bundled.train import new_model

    model = new_model(torch.Generator().manual_seed(0)).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    ids = probe(Corpus(0))[:32]
    before = model(ids)
    outliers.inject(model, ids, 0)
    assert (model(ids) - before).abs().max() < 1e-3 * before.abs().max()


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_model_has_learned(task: str) -> None:
    model, some = load_model(CHECKPOINT), items(task)[:60]
    if CHANCE[task]:
        score = measure.choice_accuracy(model.predict, some, draws=4)
    else:
        score = measure.generation_accuracy(model.predict, some)
    assert score > CHANCE[task] + 0.3
