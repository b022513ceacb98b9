"""The check of the installation finds what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Dlq = Callable[..., Any]


def test_damage_to_the_bundled_model_is_seen(tmp_path: Path) -> None:
    from cli.doctor import damaged
    from models.files import BUNDLED, locate

    assert damaged(locate(BUNDLED)) == []
    copy = tmp_path / "copy"
    shutil.copytree(locate(BUNDLED), copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "tokenizer.json").unlink()
    assert damaged(copy) == ["model.safetensors", "tokenizer.json"]
    (copy / "SHA256SUMS").unlink()
    assert damaged(copy) == ["SHA256SUMS"]


def test_doctor_tells_what_is_missing(dlq: Dlq, tmp_path: Path) -> None:
    told = dlq("doctor", "--json")
    verdicts = {check["what"]: check["verdict"] for check in told.json["data"]["checks"]}
    assert verdicts["python"] == verdicts["ray"] == verdicts["store"] == "ok"
    (tmp_path / "file").write_text("")
    bad = dlq("doctor", "--store", tmp_path / "file" / "store", "--json")
    assert bad.code == 4
    assert {c["what"]: c["verdict"] for c in bad.json["data"]["checks"]}["store"] == "bad"
