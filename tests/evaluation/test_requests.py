from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.requests import batched, batches, build_requests, check_fits, encode, load_requests, save_requests
from evaluation.spec import EvaluationSettings, TaskError, resolve_task
from evaluation.tokenizer import Tokenizer
from models.spec import read_spec
from models.transformer import MaskedDiffusionLM

SETTINGS = EvaluationSettings(batch_size=6)


def test_multiple_choice_is_asked_as_written(
    tasks: Path, folder: Path, colours_docs: list[dict[str, Any]]
) -> None:
    requests = build_requests(resolve_task(str(tasks / "colours.yaml")), folder, SETTINGS)
    tokenizer = Tokenizer(folder)
    assert len(requests) == 80
    for request in requests:
        doc = colours_docs[request.doc_id]
        assert (request.task, request.kind) == ("colours", "loglikelihood")
        assert request.context == doc["question"]
        assert request.continuation == " " + doc["choices"][request.choice]
        assert tokenizer.decode(request.prompt_ids) == request.context
        assert tokenizer.decode(request.target_ids) == doc["choices"][request.choice]


def test_generation_is_asked_as_written(tasks: Path, folder: Path) -> None:
    requests = build_requests(resolve_task(str(tasks / "sums.yaml")), folder, SETTINGS)
    assert len(requests) == 9
    assert {(r.kind, r.until, r.max_gen_toks, r.target_ids) for r in requests} == {("generate", ("?",), 6, ())}


def test_limit_and_shots(tasks: Path, folder: Path) -> None:
    task = resolve_task(str(tasks / "colours.yaml"), shots=1, limit=3)
    requests = build_requests(task, folder, SETTINGS)
    assert sorted({r.doc_id for r in requests}) == [0, 1, 2]
    assert all(r.context.count("who is the") == 2 for r in requests)
    assert build_requests(task, folder, SETTINGS) == requests  # few-shot sampling starts afresh
    # lm-eval's own default seed: what simple_evaluate would draw.
    assert len({r.context.split("\n\n")[0] for r in requests}) > 1


def test_batches_are_canonical_and_whole(tasks: Path, folder: Path) -> None:
    requests = build_requests(resolve_task(str(tasks / "colours.yaml")), folder, SETTINGS)
    groups = batches(requests)
    assert list(groups) == [0, 1, 2, 3]
    documents = [[r.doc_id for r in group if r.choice == 0] for group in groups.values()]
    assert [len(d) for d in documents] == [6, 6, 6, 2]
    for group in groups.values():
        assert len(group) == 4 * len({r.doc_id for r in group})  # all choices of a document are together
    longest = {d: max(len(r.prompt_ids + r.target_ids) for r in requests if r.doc_id == d) for d in range(20)}
    assert [d for batch in documents for d in batch] == sorted(range(20), key=lambda d: (longest[d], d))


def test_batching_does_not_depend_on_order(tasks: Path, folder: Path) -> None:
    requests = build_requests(resolve_task(str(tasks / "colours.yaml")), folder, SETTINGS)
    assert batched(reversed(requests), 6) == requests
    with pytest.raises(TaskError, match="batch 0 has 23 of its 24 requests"):
        batches(requests[1:])


def test_stored_requests_are_the_same(tasks: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("colours", "sums"):
        requests = build_requests(resolve_task(str(tasks / f"{name}.yaml")), folder, SETTINGS)
        save_requests(tmp_path / "requests.jsonl", requests)
        assert load_requests(tmp_path / "requests.jsonl") == requests


def test_what_fits_no_settings_is_named(tasks: Path, folder: Path) -> None:
    with pytest.raises(
        TaskError, match=r"task 'colours', document \d+: .* take 49 tokens, the model's context is 48"
    ):
        build_requests(resolve_task(str(tasks / "colours.yaml"), shots=5), folder, SETTINGS)
    questions = (tasks / "data" / "sums.jsonl").read_text().replace("one plus two", "one plus two" + " so" * 44)
    (tasks / "data" / "sums.jsonl").write_text(questions)  # 48 tokens, which leaves no room for an answer
    with pytest.raises(TaskError, match=r"task 'sums', document 1: .* take 49 tokens"):
        build_requests(resolve_task(str(tasks / "sums.yaml")), folder, SETTINGS)


def test_requests_depend_on_nothing_outside_their_key(tasks: Path, folder: Path) -> None:
    """Cells share the artifact: what only some settings cannot answer must not fail it for the others."""
    text = (tasks / "data" / "colours.jsonl").read_text().replace("on a mat so red", "on a mat so red" + " so" * 9)
    (tasks / "data" / "colours.jsonl").write_text(text)
    for name, settings, message in (
        ("colours", {"estimator": "enumerate"}, "document 0: 14 tokens are too many for estimator 'enumerate'"),
        ("sums", {"gen_length": 64}, "the model's context is 48"),
        ("sums", {"block_length": 4}, "block_length 4 does not divide gen_length 6"),
    ):
        task, own = resolve_task(str(tasks / f"{name}.yaml")), EvaluationSettings(batch_size=6, **settings)
        assert own.for_requests() == SETTINGS.for_requests()
        requests = build_requests(task, folder, own)
        assert requests == build_requests(task, folder, SETTINGS)
        with pytest.raises(TaskError, match=message):
            check_fits(requests, read_spec(folder), own)


def instance(context: str, continuation: Any, kind: str = "loglikelihood", repeats: int = 1) -> Any:
    return SimpleNamespace(
        task_name="t", doc_id=0, idx=0, repeats=repeats, request_type=kind, args=(context, continuation)
    )


def test_pairs_are_cut_as_lm_eval_cuts_them(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    expected = tokenizer.encode(["the cat", "is red"])
    for context, continuation in (("the cat", " is red"), ("the cat ", "is red"), ("the cat \n", " is red")):
        assert tokenizer.encode_pairs([(context, continuation)]) == [(expected[0], expected[1])]
    # Without a space the continuation runs into the last word, and is what remains of the whole.
    assert tokenizer.encode_pairs([("the c", "at is")]) == [
        (tokenizer.encode(["the c"])[0], tokenizer.encode(["is"])[0])
    ]


def test_families_with_a_first_token_get_it(tiny: Callable[..., MaskedDiffusionLM], folder: Path) -> None:
    spec = tiny("dream").spec
    asked = [instance("the cat", " is"), instance("the cat", {"until": "?"}, "generate_until")]
    ids = Tokenizer(folder).encode(["the cat"])[0]
    assert [r.prompt_ids for r in encode(asked, Tokenizer(folder), spec)] == [(spec.bos_id, *ids)] * 2
    assert [r.until for r in encode(asked, Tokenizer(folder), spec)] == [(), ("?",)]
    with pytest.raises(TaskError, match="at least one token before"):
        check_fits(encode([instance("", "is")], Tokenizer(folder), replace(spec, bos_id=None)), spec, SETTINGS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (instance("the cat", {}, "generate_until", repeats=4), "4 answers per document"),
        (instance("the cat", {}, "loglikelihood_rolling"), "loglikelihood_rolling"),
        (instance("the cat", ""), "answer option 0 has no tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tiny: Callable[..., MaskedDiffusionLM], folder: Path, asked: Any, message: str
) -> None:
    spec = tiny().spec
    with pytest.raises(TaskError, match=message):
        check_fits(encode([asked], Tokenizer(folder), spec), spec, SETTINGS)


def test_a_task_that_changed_since_the_plan_is_refused(tasks: Path, folder: Path) -> None:
    task = resolve_task(str(tasks / "colours.yaml"))
    with (tasks / "data" / "colours.jsonl").open("a") as file:
        file.write('{"question": "who", "choices": ["red", "blue"], "gold": 0}\n')
    with pytest.raises(TaskError, match="changed since"):
        build_requests(task, folder, SETTINGS)


def test_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="has no tokenizer"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TaskError, match="cannot be read"):
        Tokenizer(tmp_path)
