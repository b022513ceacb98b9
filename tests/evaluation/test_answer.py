from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.answer import Answer, answer
from evaluation.likelihood import Target, loglikelihoods
from evaluation.masks import make_masks
from evaluation.requests import Request, batched, batches, build_requests
from evaluation.sampler import SamplerSettings, generate
from evaluation.spec import EvaluationSettings, TaskError, resolve_task
from evaluation.tokenizer import Tokenizer
from models.checkpoint import load_model

SETTINGS = EvaluationSettings(batch_size=4, tokens_per_forward=300)


def result(a: Answer) -> Any:
    """Everything but the time it took, floats by their exact bits."""
    exact = None if a.loglikelihood is None else a.loglikelihood.hex()
    return a.key, a.kind, exact, a.text, a.tokens, a.target_length


@pytest.mark.parametrize("name", ["colours", "sums"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "cfg_scale": 0.5}, {"remasking": "random"}])
def test_any_set_of_batches_gives_the_same_bits(
    tasks: Path, folder: Path, name: str, options: dict[str, Any]
) -> None:
    settings = EvaluationSettings(batch_size=4, tokens_per_forward=300, **options)
    model, tokenizer = load_model(folder), Tokenizer(folder)
    requests = build_requests(resolve_task(str(tasks / f"{name}.yaml")), folder, settings)
    whole = [result(a) for a in answer(model, tokenizer, requests, settings)]
    assert [w[0] for w in whole] == [r.key for r in requests]
    alone: list[Any] = []
    for group in reversed(list(batches(requests).values())):
        alone = [result(a) for a in answer(model, tokenizer, group, settings)] + alone
    assert alone == whole
    shuffled = answer(model, tokenizer, requests[1::2] + requests[::2], settings)
    assert sorted(map(result, shuffled)) == sorted(whole)


def test_answers_are_those_of_the_estimator_and_the_sampler(tasks: Path, folder: Path) -> None:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    requests = build_requests(resolve_task(str(tasks / "colours.yaml")), folder, SETTINGS)
    for r, a in zip(requests[:9], answer(model, tokenizer, requests, SETTINGS), strict=False):
        masks = make_masks("stratified", len(r.target_ids), 8, (0, "colours", r.doc_id))
        alone = loglikelihoods(model, [Target(r.prompt_ids, r.target_ids, masks)])[0]
        assert a.loglikelihood == pytest.approx(alone, rel=1e-6)
    requests = build_requests(resolve_task(str(tasks / "sums.yaml")), folder, SETTINGS)
    sampler = SamplerSettings(SETTINGS.canvas(6))
    for r, a in zip(requests, answer(model, tokenizer, requests, SETTINGS), strict=True):
        tokens = generate(model, [r.prompt_ids], sampler, early_stop=False)[0]
        kept = tokens[: tokens.index(0)] if 0 in tokens else tokens
        assert a.text == tokenizer.decode(kept).split("?")[0]
        assert a.target_length == 6


def test_texts_end_at_eos_and_at_stop_strings(folder: Path) -> None:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    plain = Request("t", 0, 0, "generate", "the cat", "", tokenizer.encode(["the cat"])[0], max_gen_toks=6)
    full = answer(model, tokenizer, batched([plain], 1), SETTINGS)[0]
    assert full.text is not None and full.tokens is not None
    words = full.text.split()
    assert tokenizer.encode([full.text])[0] == full.tokens and len(words) >= 3
    stop = Request(**{**plain.__dict__, "until": ("nothing", words[2])})
    cut = answer(model, tokenizer, batched([stop], 1), SETTINGS)[0]
    assert cut.text is not None and cut.text == full.text[: full.text.index(words[2])]


def test_choices_of_one_length_share_their_masks(folder: Path) -> None:
    """Same target twice under two choice numbers: the Monte-Carlo noise is common, so the estimates are equal."""
    prompt, target = (3, 4, 5), (6, 7, 8, 9, 10)
    asked = [Request("t", 0, choice, "loglikelihood", "", "", prompt, target) for choice in (0, 1)]
    other = [Request("t", 1, choice, "loglikelihood", "", "", prompt, target) for choice in (0, 1)]
    rows = answer(load_model(folder), Tokenizer(folder), batched(asked + other, 2), SETTINGS)
    values = [r.loglikelihood for r in rows]
    assert values[0] == values[1] and values[2] == values[3] and values[0] != values[2]


def test_rows_survive_a_table(tasks: Path, folder: Path) -> None:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    for name in ("colours", "sums"):
        requests = build_requests(resolve_task(str(tasks / f"{name}.yaml")), folder, SETTINGS)
        for a in answer(model, tokenizer, requests, SETTINGS):
            row = json.loads(json.dumps({**a.to_row(), "artifact": "of storage"}))
            assert Answer.from_row(row) == a and a.seconds > 0


def test_torn_batches_and_long_answers_are_refused(tasks: Path, folder: Path) -> None:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    requests = build_requests(resolve_task(str(tasks / "sums.yaml")), folder, SETTINGS)
    with pytest.raises(TaskError, match="batch 0 has 3 of its 4"):
        answer(model, tokenizer, requests[1:], SETTINGS)
    with pytest.raises(TaskError, match="the model's context is 48"):
        answer(model, tokenizer, requests, EvaluationSettings(gen_length=46, block_length=46))
