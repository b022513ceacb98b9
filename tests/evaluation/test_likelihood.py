from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from evaluation.likelihood import Target, forwards, layout, loglikelihoods
from evaluation.masks import Masks, enumerate_masks, generator, make_masks, stratified_masks
from models.transformer import MaskedDiffusionLM

Make = Callable[..., MaskedDiffusionLM]
PROMPT, TARGETS = (3, 7, 12), [(9,), (4, 5), (11, 6, 20), (14, 8, 5, 19), (22, 3, 3, 10, 6)]


def naive_logp(
    model: MaskedDiffusionLM, prompt: tuple[int, ...], target: tuple[int, ...], mask: set[int]
) -> float:
    """Σ over masked positions of log p, one row, full logits, float64 softmax."""
    noised = [model.spec.mask_id if i in mask else t for i, t in enumerate(target)]
    logits = model(torch.tensor([[*prompt, *noised]])).double()[0]
    if model.spec.shift:
        logits = torch.cat([logits[:1], logits[:-1]])
    logp = logits.log_softmax(-1)
    return sum(float(logp[len(prompt) + i, target[i]]) for i in mask)


def brute_force(model: MaskedDiffusionLM, prompt: tuple[int, ...], target: tuple[int, ...]) -> float:
    n = len(target)
    return sum(
        naive_logp(model, prompt, target, set(subset)) / (k * comb(n, k))
        for k in range(1, n + 1)
        for subset in combinations(range(n), k)
    )


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_enumeration_equals_brute_force(tiny: Make, family: str) -> None:
    model = tiny(family)
    # Prompts of different lengths, so that rows are padded.
    asked = [Target(PROMPT * (1 + i % 3), t, enumerate_masks(len(t))) for i, t in enumerate(TARGETS)]
    expected = [brute_force(model, a.prompt, a.target) for a in asked]
    assert loglikelihoods(model, asked) == pytest.approx(expected, rel=2e-6)
    assert min(expected) < -5


def test_stratified_agrees_with_enumeration_within_its_error(tiny: Make) -> None:
    model, target = tiny(), TARGETS[4]
    exact = brute_force(model, PROMPT, target)
    single = [stratified_masks(5, 1, generator("one draw", i)) for i in range(1500)]
    draws = np.array(loglikelihoods(model, [Target(PROMPT, target, masks) for masks in single]))
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert abs(draws.mean() - exact) < 4 * error
    assert error < 0.05 * abs(exact)  # tight enough to notice a bias of a fifth
    merged = loglikelihoods(model, [Target(PROMPT, target, stratified_masks(5, 4000, generator("many")))])[0]
    assert abs(merged - exact) < 4 * draws.std() / np.sqrt(4000)


def test_guidance_follows_the_formula(tiny: Make) -> None:
    model, target, w = tiny(), (9, 14), 0.7
    row = [*PROMPT, model.spec.mask_id, 14]
    c = model(torch.tensor([row])).double()[0, 3]
    u = model(torch.tensor([[model.spec.mask_id] * 4 + [14]])).double()[0, 3]
    expected = float((u + (w + 1) * (c - u)).log_softmax(-1)[9])
    only = Masks(np.array([[True, False]]), np.array([1.0]))
    assert loglikelihoods(model, [Target(PROMPT, target, only)], cfg_scale=w)[0] == pytest.approx(
        expected, rel=1e-5
    )


def test_identical_noised_inputs_are_one_row() -> None:
    options = [Target(PROMPT, (t,), make_masks("stratified", 1, 8, (0,))) for t in (4, 5, 6, 7)]
    rows = layout(options, mask_id=1)
    assert len(rows) == 1 and [use.owner for use in rows[0].uses] == [0, 1, 2, 3]
    shared = [Target(PROMPT, t, enumerate_masks(2)) for t in ((4, 5), (4, 6))]
    assert len(layout(shared, mask_id=1)) == 4  # both masked; second masked; and each with its own second token
    assert len(layout([*options, Target((3, 7), (9,), enumerate_masks(1))], mask_id=1)) == 2


def test_forwards_respect_the_token_bound() -> None:
    rows = layout([Target(PROMPT * n, (4,), enumerate_masks(1)) for n in (1, 5, 2, 1, 9, 3)], mask_id=1)
    cut = list(forwards(rows, 32))
    assert sorted(len(r.ids) for group in cut for r in group) == [4, 7, 10, 16, 28]
    assert all(len(group) == 1 or len(group) * len(group[-1].ids) <= 32 for group in cut)


@pytest.mark.parametrize("bound", [1, 40, 100_000])
def test_padding_and_cutting_change_no_more_than_rounding(tiny: Make, bound: int) -> None:
    model = tiny()
    asked = [Target(PROMPT * (1 + i % 4), t, enumerate_masks(len(t))) for i, t in enumerate(TARGETS)]
    alone = [loglikelihoods(model, [a])[0] for a in asked]
    assert loglikelihoods(model, asked, tokens_per_forward=bound) == pytest.approx(alone, rel=1e-6)
