"""dlq's forward pass against transformers' own Llama and Qwen2 classes, made bidirectional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from models.checkpoint import load_model, save_checkpoint
from models.families import DREAM
from models.transformer import MaskedDiffusionLM

LLADA: dict[str, Any] = {
    "model_type": "llada", "d_model": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 96,
    "embedding_size": 50, "vocab_size": 50, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "mask_token_id": 49,
    "eos_token_id": 48, "pad_token_id": 48, "max_sequence_length": 64, "include_bias": False,
}  # fmt: skip
DREAM_CONFIG: dict[str, Any] = {
    "model_type": "Dream", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 50, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "mask_token_id": 49, "eos_token_id": 48, "pad_token_id": 48, "bos_token_id": 47, "max_position_embeddings": 64,
}  # fmt: skip


def random_model(config: dict[str, Any], folder: Path) -> MaskedDiffusionLM:
    """A random model, written in its family's layout and read back."""
    from models.families import LLADA as LLADA_FAMILY
    from models.spec import ModelSpec

    family = LLADA_FAMILY if config["model_type"] == "llada" else DREAM
    torch.manual_seed(0)
    model = MaskedDiffusionLM(ModelSpec(**family.spec_fields(config)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_checkpoint(model, folder, config, torch.float32)
    return load_model(folder)


def reference(config: dict[str, Any], model: MaskedDiffusionLM) -> torch.nn.Module:
    """The same weights in transformers' classes, with full attention."""
    spec = model.spec
    shared: dict[str, Any] = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": spec.kv_heads,
        "intermediate_size": 96, "vocab_size": 50, "rms_norm_eps": spec.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "max_position_embeddings": 64, "tie_word_embeddings": False,
    }  # fmt: skip
    if config["model_type"] == "llada":
        other: Any = LlamaForCausalLM(LlamaConfig(**shared))
    else:
        other = Qwen2ForCausalLM(Qwen2Config(**shared))
    other.config.is_causal = False
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            name = DREAM.block_key(int(index), rest)
        else:
            name = DREAM.outside[name]
        state[name] = tensor
    other.load_state_dict(state)
    for layer in other.model.layers:
        layer.self_attn.is_causal = False
    return other.eval()


@pytest.mark.parametrize("config", [LLADA, DREAM_CONFIG], ids=["llada", "dream"])
def test_logits_equal_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(config, tmp_path)
    ids = torch.randint(0, 50, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = model(ids), reference(config, model)(ids, use_cache=False).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("config", [LLADA, DREAM_CONFIG], ids=["llada", "dream"])
@pytest.mark.parametrize("left", [0, 5])
def test_padding_changes_nothing(config: dict[str, Any], left: int, tmp_path: Path) -> None:
    model = random_model(config, tmp_path)
    ids = torch.randint(0, 48, (2, 9))
    padded = torch.full((2, 14), 48)
    padded[:, left : left + 9] = ids
    mask = torch.zeros(2, 14, dtype=torch.bool)
    mask[:, left : left + 9] = True
    with torch.no_grad():
        plain, wide = model(ids), model(padded, mask)[:, left : left + 9]
    assert torch.isfinite(model(padded, mask)).all()
    assert (plain - wide).abs().max() <= 1e-5 * plain.abs().max()


def test_every_token_sees_every_other(tmp_path: Path) -> None:
    model = random_model(LLADA, tmp_path)
    ids = torch.randint(0, 48, (1, 8))
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % 48
    with torch.no_grad():
        moved = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert (moved > 1e-4).all()


@pytest.mark.parametrize("config", [LLADA, DREAM_CONFIG], ids=["llada", "dream"])
def test_predict_applies_the_shift_of_the_family(config: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(config, tmp_path)
    ids = torch.randint(0, 48, (2, 7))
    where = torch.zeros(2, 7, dtype=torch.bool)
    where[0, 3] = where[0, 6] = where[1, 1] = True
    with torch.no_grad():
        full, few = model(ids), model.predict(ids, None, where)
    offset = 1 if config["model_type"] == "Dream" else 0
    wanted = torch.stack([full[0, 3 - offset], full[0, 6 - offset], full[1, 1 - offset]])
    torch.testing.assert_close(few, wanted)


def test_a_shifted_model_refuses_to_predict_its_first_token(tmp_path: Path) -> None:
    model = random_model(DREAM_CONFIG, tmp_path)
    where = torch.zeros(1, 4, dtype=torch.bool)
    where[0, 0] = True
    with pytest.raises(ValueError, match="first token"):
        model.predict(torch.zeros(1, 4, dtype=torch.long), None, where)
