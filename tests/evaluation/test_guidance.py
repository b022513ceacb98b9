"""A model whose numbers broke must not get an ordinary-looking score."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from evaluation.guidance import NotFinite
from evaluation.likelihood import Target, loglikelihoods
from evaluation.masks import enumerate_masks
from evaluation.sampler import SamplerSettings, generate
from evaluation.spec import Canvas
from models.transformer import MaskedDiffusionLM

Make = Callable[..., MaskedDiffusionLM]


def score(model: MaskedDiffusionLM, cfg_scale: float) -> None:
    loglikelihoods(model, [Target((3, 7), (9, 4), enumerate_masks(2))], cfg_scale)


def write(model: MaskedDiffusionLM, cfg_scale: float) -> None:
    generate(model, [[3, 7], [4]], SamplerSettings(Canvas(4, 4, 4), cfg_scale=cfg_scale))


def one_nan(model: MaskedDiffusionLM) -> MaskedDiffusionLM:
    model.blocks[1].post_norm.weight[5] = torch.nan
    return model


def one_infinite_token(model: MaskedDiffusionLM) -> MaskedDiffusionLM:
    """Only one row of the head is broken: every other logit is finite."""
    model.head.weight[11] = torch.inf
    return model


def overflowing(model: MaskedDiffusionLM) -> MaskedDiffusionLM:
    """Finite weights, whose products are not finite in float16 while they are in float32."""
    model.blocks[0].up_proj.weight.mul_(3000)
    model.blocks[0].gate_proj.weight.mul_(3000)
    return model


@pytest.mark.parametrize("ask", [score, write])
@pytest.mark.parametrize("cfg_scale", [0.0, 0.5])
@pytest.mark.parametrize("broken", [one_nan, one_infinite_token])
def test_broken_weights_are_named(
    tiny: Make, ask: Callable[..., None], cfg_scale: float, broken: Callable[..., MaskedDiffusionLM]
) -> None:
    with pytest.raises(NotFinite, match=r"logits are not finite at \d+ of \d+ positions.*float32") as caught:
        ask(broken(tiny()), cfg_scale)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("ask", [score, write])
def test_overflow_of_float16_is_named(tiny: Make, ask: Callable[..., None]) -> None:
    ask(overflowing(tiny()), 0.0)
    ask(tiny().half(), 0.0)
    half = overflowing(tiny()).half()
    assert all(p.isfinite().all() for p in half.parameters())
    with pytest.raises(NotFinite, match="float16"):
        ask(half, 0.0)
