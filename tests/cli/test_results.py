"""Averages and labels against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from cli.page import _score
from cli.tables import delta, narrow_delta, score
from dlq.labels import DETAILS, SETTINGS, labels
from dlq.results import Estimate, average


def test_average_of_two_tasks() -> None:
    """Means of 0.5 and 0.7; errors 0.03 and 0.04 add up to 0.05 in quadrature, halved; so do the half widths."""
    found = average([Estimate(0.5, 0.03, -0.2, -0.26, -0.14), Estimate(0.7, 0.04, 0.1, 0.02, 0.18)])
    assert found is not None
    assert found.value == pytest.approx(0.6)
    assert found.stderr == pytest.approx(0.025)
    assert found.delta == pytest.approx(-0.05)
    assert (found.low, found.high) == (pytest.approx(-0.05 - 0.05), pytest.approx(-0.05 + 0.05))


def test_average_of_one_task_is_that_task() -> None:
    assert average([Estimate(0.5, 0.03, -0.2, -0.25, -0.15)]) == Estimate(
        0.5, 0.03, -0.2, pytest.approx(-0.25), pytest.approx(-0.15)
    )


def test_average_without_differences() -> None:
    assert average([Estimate(0.5, 0.1), Estimate(1.0, 0.1)]) == Estimate(0.75, pytest.approx(math.sqrt(0.02) / 2))
    assert average([Estimate(0.5, None), Estimate(1.0, 0.1)]) == Estimate(0.75, None)
    assert average([Estimate(None), Estimate(1.0, 0.1)]) is None
    assert average([]) is None


def test_numbers_carry_their_uncertainty() -> None:
    estimate = Estimate(0.5671, 0.0386, -0.12, -0.15, 0.09)
    assert score(estimate) == "0.567±0.039"
    assert delta(estimate) == "−0.120 [−0.150, 0.090]"
    assert narrow_delta(estimate) == "−0.120\n[−.150,.090]"
    assert narrow_delta(Estimate(11.0, 0.5, 10.25, 10.0, 10.5)) == "+10.250\n[10.000,10.500]"
    assert (score(None), delta(None), narrow_delta(Estimate(0.5))) == (None, None, None)


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "verdict"),
    [
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),  # a perplexity that fell
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.1, 0.1, True, ""),
        (-0.1, 0.1, False, ""),
        (0.1, 0.3, None, ""),
    ],
)
def test_better_and_worse_go_by_the_metric(
    low: float, high: float, higher_is_better: bool | None, verdict: str
) -> None:
    estimate = Estimate(1.0, 0.1, (low + high) / 2, low, high, higher_is_better=higher_is_better)
    assert _score(estimate)["verdict"] == verdict
    assert average([estimate, estimate]) is not None
    assert _score(average([estimate, estimate]))["verdict"] == verdict


def test_an_average_of_both_directions_has_no_verdict() -> None:
    up = Estimate(0.5, 0.1, -0.2, -0.25, -0.15, higher_is_better=True)
    down = Estimate(9.0, 0.1, -0.2, -0.25, -0.15, higher_is_better=False)
    assert _score(average([up, down]))["verdict"] == ""


BASE = {"model": "m", "abits": 16, "group_size": 64, "symmetric": False}


def named(*cells: dict[str, object]) -> list[str]:
    rows = [{**BASE, **cell, "cell": str(i)} for i, cell in enumerate(cells)]
    return list(labels(rows).values())


def test_labels_hold_only_what_tells_cells_apart() -> None:
    assert named(
        {"method": "full_precision", "is_baseline": True, "wbits": 16, "group_size": None},
        {"method": "rtn", "wbits": 4, "abits": 8, "calibration": "masked"},
        {"method": "gptq", "wbits": 2, "calibration": "masked"},
        {"method": "gptq", "wbits": 2, "calibration": "visible"},
        {"method": "gptq", "wbits": 3, "calibration": "visible", "group_size": -1, "symmetric": True},
    ) == ["full precision", "rtn W4A8 g64", "gptq W2 g64 masked", "gptq W2 g64 visible", "gptq W3 sym"]


def test_labels_of_flags_and_numbers() -> None:
    assert named(
        {"method": "gptq", "wbits": 2, "act_order": True, "damping": 0.01},
        {"method": "gptq", "wbits": 2, "act_order": False, "damping": 0.1},
    ) == ["gptq W2 g64 act_order damping=0.01", "gptq W2 g64 no act_order damping=0.1"]


def test_labels_know_every_field_that_can_tell_cells_apart() -> None:
    """All columns of evaluation and recipe but those that every label begins with."""
    from storage.schemas import EVALUATION, RECIPE

    always = {"method", "wbits", "abits", "group_size", "symmetric"}
    assert set(EVALUATION) | set(RECIPE) - always <= {*DETAILS, *SETTINGS}
    assert named(
        {"method": "rtn", "wbits": 4, "tokens_per_forward": 512},
        {"method": "rtn", "wbits": 4, "tokens_per_forward": 1024},
    ) == ["rtn W4 g64 tokens_per_forward=512", "rtn W4 g64 tokens_per_forward=1024"]
