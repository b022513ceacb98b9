"""Bad checkpoints are refused before anything runs, each with one line that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.families import LLADA as FAMILY
from models.files import check_tensors, expected_shapes, locate, read_model, weight_files
from models.spec import ModelError, ModelSpec, read_spec

CONFIG: dict[str, Any] = {
    "model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 2, "mlp_hidden_size": 64, "vocab_size": 20,
    "mask_token_id": 19, "eos_token_id": 18, "max_sequence_length": 32,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = ModelSpec(**FAMILY.spec_fields(CONFIG))
    save_file({k: torch.randn(s) for k, s in expected_shapes(spec).items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def rewrite(folder: Path, **fields: Any) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_head_is_not_a_down_projection() -> None:
    keys = expected_shapes(ModelSpec(**FAMILY.spec_fields(CONFIG)))
    assert keys["model.transformer.ff_out.weight"] == (20, 32)
    assert keys["model.transformer.blocks.1.ff_out.weight"] == (32, 64)
    assert len(keys) == 3 + 2 * 9


def test_identity_follows_content_not_place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = read_model(str(folder)), read_model(str(copy))
    assert first.identity() == second.identity()
    state = load_file(folder / "model.safetensors")
    state["model.transformer.ln_f.weight"][0] += 1
    save_file(state, copy / "model.safetensors")
    assert read_model(str(copy)).identity() != first.identity()


def test_sharded_checkpoints_are_read_through_their_index(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    for part, keys in (("a.safetensors", names[:5]), ("b.safetensors", names[5:])):
        save_file({key: state[key] for key in keys}, folder / part)
    weight_map = {key: "a.safetensors" if key in names[:5] else "b.safetensors" for key in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert [path.name for path in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    check_tensors(folder, read_spec(folder))


def test_refusals_name_the_reason(folder: Path) -> None:
    rewrite(folder, mask_token_id=None)
    assert "mask_token_id" in refusal(folder)
    rewrite(folder, mask_token_id=20)
    assert "outside the vocabulary" in refusal(folder)
    rewrite(folder, model_type="llama")
    assert "'llama' is not a masked-diffusion family" in refusal(folder)
    rewrite(folder, n_layers=3)
    assert "has no tensor model.transformer.blocks.2" in refusal(folder)
    rewrite(folder, mlp_hidden_size=65)
    assert "config.json says" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(folder)


def test_broken_or_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 4)
    assert "not a readable safetensors file" in refusal(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "pickled weights are not read" in refusal(folder)


def test_unknown_names_are_explained() -> None:
    with pytest.raises(ModelError, match="give 'bundled', a checkpoint folder, or a hub name"):
        locate("no-such-model")
