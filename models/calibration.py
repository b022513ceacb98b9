"""Calibration settings and the token sequences they stand for.

The settings are torch-free data and part of every statistics key; the sequences are rebuilt from text, seed
and tokenizer alone. Does not protect against calibrating on evaluated text: that is the user's choice of data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.files import file_hash
from quant.lazy import torch

MASKINGS = ("none", "uniform")


class CalibrationError(ValueError):
    """Calibration data that cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Calibration:
    """What a model sees while statistics are taken.

    data: 'bundled', or a .jsonl file with a "text" field per line, or a .txt file (one text per line).
    samples x length: sequences used for fitting and tokens in each; held_out: further sequences that
    only measure error. masking, prefix_ratio, seed: see `models.masking`.
    packing: 'rows' takes the first `length` tokens of every text long enough; 'stream' concatenates all
    texts, with the end-of-text token between them, and cuts windows.
    """

    name: str
    data: str
    content: str
    samples: int = 128
    length: int = 128
    held_out: int = 16
    masking: str = "uniform"
    prefix_ratio: float = 0.0
    packing: str = "stream"
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """Everything but the label and the place of the file, whose content hash stands for it."""
        fields = asdict(self)
        del fields["name"], fields["data"]
        return fields


def calibration_file(data: str) -> Path:
    """The text file behind a `data:` setting; CalibrationError when it does not exist."""
    path = (
        Path(str(files("models") / "bundled" / "data" / "calibration.jsonl")) if data == "bundled" else Path(data)
    )
    if not path.is_file():
        raise CalibrationError(f"no calibration file {data!r}: give 'bundled', a .jsonl or a .txt file")
    return path


def content_hash(data: str) -> str:
    """SHA-256 of the calibration text."""
    return file_hash(calibration_file(data))


def read_texts(path: Path) -> list[str]:
    """The texts of a .jsonl file ("text" field) or of a text file (non-empty lines)."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        return lines
    try:
        return [str(json.loads(line)["text"]) for line in lines]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CalibrationError(f'{path}: every line must be JSON with a "text" field ({error})') from None


def sequences(calibration: Calibration, tokenizer_file: Path, eos_id: int) -> torch.Tensor:
    """Token ids [samples + held_out, length] int64; the last `held_out` rows are never used for fitting.

    Windows are drawn without replacement by a permutation seeded with the calibration seed.
    Raises CalibrationError when the text is too short, or is not the text that the keys of a plan stand for.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    path = calibration_file(calibration.data)
    if file_hash(path) != calibration.content:
        raise CalibrationError(f"{path} changed since the sweep was planned: start the sweep again")
    texts = read_texts(path)
    encoded = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    windows = _windows(encoded, calibration, eos_id)
    wanted = calibration.samples + calibration.held_out
    if len(windows) < wanted:
        raise CalibrationError(
            f"calibration {calibration.name!r} needs {wanted} sequences of {calibration.length} tokens, "
            f"{calibration.data} holds {len(windows)}: lower samples, held_out or length"
        )
    from models.masking import generator

    order = torch.randperm(len(windows), generator=generator("calibration windows", calibration.seed))
    return torch.tensor([windows[i] for i in order[:wanted].tolist()], dtype=torch.int64)


def _windows(encoded: list[list[int]], calibration: Calibration, eos_id: int) -> list[list[int]]:
    length = calibration.length
    if calibration.packing == "rows":
        return [ids[:length] for ids in encoded if len(ids) >= length]
    stream = [token for ids in encoded for token in (*ids, eos_id)]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
