"""Calibration text: what a plan's keys stand for is what is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.calibration import Calibration, CalibrationError, content_hash, sequences
from models.files import locate

TOKENIZER = locate("bundled") / "tokenizer.json"


def calibration(data: Path) -> Calibration:
    return Calibration("c", str(data), content_hash(str(data)), samples=2, held_out=1, length=4)


def test_text_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "text.jsonl"
    rows = [{"text": f"the number {i} and a few more words"} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    planned = calibration(data)
    assert sequences(planned, TOKENIZER, 2).shape == (3, 4)
    data.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    with pytest.raises(CalibrationError, match=r"text\.jsonl changed since the sweep was planned") as caught:
        sequences(planned, TOKENIZER, 2)
    assert "\n" not in str(caught.value)
    assert sequences(calibration(data), TOKENIZER, 2).shape == (3, 4)
