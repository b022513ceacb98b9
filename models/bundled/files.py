"""Files of the bundled model: tokenizer, config, task data, calibration text, checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.bundled.corpus import CONTEXT, TASKS, Corpus
from models.bundled.tokenizer import write_tokenizer
from models.spec import ModelSpec

HERE = Path(__file__).parent
ITEMS = 500
CALIBRATION_ROWS = 1024
SUMS = "SHA256SUMS"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One JSON object per line; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_data(corpus: Corpus, tasks: Path, calibration: Path) -> None:
    """Task data (tasks/<name>.jsonl) and calibration text, all drawn from the corpus's seed."""
    for task in TASKS:
        write_jsonl(tasks / f"{task}.jsonl", corpus.items(task, ITEMS))
    write_jsonl(calibration, ({"text": text} for text in corpus.calibration(CALIBRATION_ROWS)))


def llada_config(spec: ModelSpec, vocabulary: int) -> dict[str, Any]:
    """config.json under LLaDA's field names; `vocabulary` words are used of spec.vocab_size rows."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "d_model": spec.hidden_size,
        "n_layers": spec.layers,
        "n_heads": spec.heads,
        "n_kv_heads": spec.kv_heads,
        "mlp_hidden_size": spec.intermediate_size,
        "vocab_size": spec.vocab_size,
        "embedding_size": spec.vocab_size,
        "used_vocab_size": vocabulary,
        "max_sequence_length": CONTEXT,
        "mask_token_id": spec.mask_id,
        "eos_token_id": spec.eos_id,
        "pad_token_id": spec.pad_id,
        "rms_norm_eps": spec.norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": spec.rope_theta,
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "bias_for_layer_norm": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "scale_logits": False,
        "weight_tying": False,
        "alibi": False,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "use_cache": False,
        "torch_dtype": "float16",
    }


def write_sums(folder: Path) -> None:
    """SHA256SUMS over every other file of the folder, in `sha256sum -c` form."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))


def write_checkpoint_folder(folder: Path) -> None:
    """The files beside the weights: tokenizer, then checksums of all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    write_sums(folder)
