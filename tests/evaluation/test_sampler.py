from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from evaluation.sampler import SamplerSettings, generate, schedule
from evaluation.spec import Canvas
from models.transformer import MaskedDiffusionLM

Make = Callable[..., MaskedDiffusionLM]
PROMPTS = [[3, 7, 12], [4], [9, 9, 3, 17, 20, 5, 6, 8, 13], [22, 10, 11, 4, 3], [15, 16]]
CANVASES = [
    Canvas(12, 4, 12),
    Canvas(12, 12, 12),
    Canvas(12, 6, 4),
    Canvas(12, 12, 5),  # 3, 3, 2, 2, 2
    Canvas(8, 4, 16),  # more steps than tokens
]


def reference(model: MaskedDiffusionLM, prompt: list[int], canvas: Canvas, cfg: float = 0.0) -> list[int]:
    """One prompt, one step at a time, full logits, plain loops."""
    mask, ids = model.spec.mask_id, prompt + [model.spec.mask_id] * canvas.gen_length
    steps = canvas.steps // canvas.blocks
    for block in range(canvas.blocks):
        first = len(prompt) + block * canvas.block_length
        columns = range(first, first + canvas.block_length)
        for step in range(steps):
            logits = naive_logits(model, ids)
            if cfg:
                blind = naive_logits(model, [mask] * len(prompt) + ids[len(prompt) :])
                logits = blind + (cfg + 1) * (logits - blind)
            found = []
            for column in (c for c in columns if ids[c] == mask):
                p = logits[column].softmax(-1)
                p_allowed = p.clone()
                p_allowed[mask] = -1
                token = int(p_allowed.argmax())
                found.append((-float(p[token]), column, token))
            count = canvas.block_length // steps + (step < canvas.block_length % steps)
            for _, column, token in sorted(found)[:count]:
                ids[column] = token
    return ids[len(prompt) :]


def naive_logits(model: MaskedDiffusionLM, ids: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([ids]))[0]
    return torch.cat([logits[:1], logits[:-1]]) if model.spec.shift else logits


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("canvas", CANVASES, ids=str)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_batches_equal_one_prompt_at_a_time(tiny: Make, family: str, canvas: Canvas, padding: str) -> None:
    model = tiny(family, seed=1)
    expected = [reference(model, p, canvas) for p in PROMPTS]
    settings = SamplerSettings(canvas, padding=padding)
    assert generate(model, PROMPTS, settings, early_stop=False) == expected
    assert len({tuple(e) for e in expected}) == len(PROMPTS)


def test_guidance_equals_the_reference(tiny: Make) -> None:
    model, canvas = tiny(seed=2), CANVASES[0]
    expected = [reference(model, p, canvas, cfg=1.5) for p in PROMPTS]
    assert generate(model, PROMPTS, SamplerSettings(canvas, cfg_scale=1.5), early_stop=False) == expected
    assert expected != [reference(model, p, canvas) for p in PROMPTS]


@pytest.mark.parametrize("canvas", CANVASES[:3], ids=str)
def test_early_stop_keeps_exactly_what_a_full_canvas_keeps(tiny: Make, canvas: Canvas) -> None:
    ended = 0
    for seed in range(4):
        model = tiny(seed=seed, eos_bias=8.0)
        full = generate(model, PROMPTS, SamplerSettings(canvas), early_stop=False)
        short = generate(model, PROMPTS, SamplerSettings(canvas))
        for a, b in zip(full, short, strict=True):
            assert b == (a[: a.index(0) + 1] if 0 in a else a)
            ended += 0 in a[:-1]
    assert ended > 0  # some answers did end early


def test_stop_function_ends_an_answer_at_committed_text(tiny: Make) -> None:
    model, canvas = tiny(seed=1), Canvas(12, 4, 12)
    full = generate(model, PROMPTS, SamplerSettings(canvas), early_stop=False)
    word = full[0][5]
    short = generate(model, PROMPTS, SamplerSettings(canvas), stop=lambda tokens: word in tokens)
    for a, b in zip(full, short, strict=True):
        assert b == a[: len(b)] and (word in b) == (word in a)
    assert len(short[0]) < 12


def count_forwards(model: MaskedDiffusionLM, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, int]:
    """Forward passes, and logits rows computed by the head."""
    calls: list[int] = []
    real = model.predict

    def counting(*inputs: torch.Tensor) -> torch.Tensor:
        logits = real(*inputs)
        calls.append(len(logits))
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(model, "predict", counting)
        generate(model, **options)
    return len(calls), sum(calls)


def test_work_is_no_more_than_needed(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(seed=1)
    settings = SamplerSettings(Canvas(8, 4, 16))
    passes, rows = count_forwards(model, monkeypatch, prompts=PROMPTS, settings=settings, early_stop=False)
    assert passes == 8  # 16 steps, 8 of which commit a token
    assert rows == len(PROMPTS) * 2 * (4 + 3 + 2 + 1)  # open positions of the block only
    everything = {"prompts": PROMPTS, "settings": SamplerSettings(Canvas(12, 4, 12))}
    assert count_forwards(model, monkeypatch, **everything, stop=lambda tokens: len(tokens) >= 4)[0] <= 4


def test_schedule() -> None:
    assert schedule(12, 5) == [3, 3, 2, 2, 2]
    assert schedule(4, 4) == [1, 1, 1, 1]
    assert schedule(3, 8) == [1, 1, 1]


def test_ties_go_to_the_leftmost_position(tiny: Make) -> None:
    model = tiny(seed=1)
    for block in model.blocks:  # without mixing, all masked positions are the same and every confidence is equal
        block.o_proj.weight.zero_()
        block.down_proj.weight.zero_()
    committed: list[int] = []

    def stop(tokens: list[int]) -> bool:
        committed.append(len(tokens))
        return False

    generate(model, [[3, 4]], SamplerSettings(Canvas(12, 6, 6)), stop=stop)
    assert committed == [2, 4, 6, 8, 10, 12]


def test_mask_is_never_an_answer(tiny: Make) -> None:
    model = tiny()
    model.head.weight.zero_()
    model.head.weight[model.spec.mask_id] = model.norm.weight  # often the largest logit
    answers = generate(model, PROMPTS, SamplerSettings(CANVASES[0]), early_stop=False)
    assert all(len(a) == 12 and model.spec.mask_id not in a for a in answers)


@pytest.mark.parametrize("options", [{"temperature": 0.8}, {"remasking": "random"}])
def test_random_answers_belong_to_their_seed_not_their_batch(tiny: Make, options: dict[str, Any]) -> None:
    model, settings = tiny(seed=3), SamplerSettings(Canvas(12, 4, 6), **options)
    seeds = [f"document {i}" for i in range(len(PROMPTS))]
    together = generate(model, PROMPTS, settings, seeds, early_stop=False)
    alone = [generate(model, [p], settings, [s], early_stop=False)[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together == alone
    assert together == generate(model, PROMPTS, settings, seeds, early_stop=False)
    assert together != generate(model, PROMPTS, settings, [f"other {s}" for s in seeds], early_stop=False)
    assert together != generate(model, PROMPTS, SamplerSettings(settings.canvas), early_stop=False)


def test_sampling_follows_the_softmax_at_its_temperature(tiny: Make) -> None:
    model, temperature, n = tiny(seed=4), 1.7, 3000
    p = (naive_logits(model, [3, 7, model.spec.mask_id])[2].double() / temperature).softmax(-1)
    p[model.spec.mask_id] = 0
    p /= p.sum()
    drawn = generate(model, [[3, 7]] * n, SamplerSettings(Canvas(1, 1, 1), temperature=temperature))
    seen = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(p)).double()
    used = p > 0
    chi2 = float(((seen - n * p)[used] ** 2 / (n * p[used])).sum())
    assert chi2 < 60  # 99.99 % quantile with 24 degrees of freedom is 59
    assert seen[model.spec.mask_id] == 0


def test_no_prompts_no_answers(tiny: Make) -> None:
    assert generate(tiny(), [], SamplerSettings(CANVASES[0])) == []
