"""How each family spells its config fields and tensor names; the only place that knows.

LLaDA (arXiv 2502.09992): a Llama block under OLMo names; `model.transformer.ff_out` is the LM head while
`blocks.i.ff_out` is the down projection, so names are matched whole, never by suffix.
Dream (arXiv 2508.15487): Qwen2 names, biases on q/k/v, logits shifted by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Names of one family. `block` maps dlq's tensor names inside block i to the file's; {i} is the block."""

    name: str
    model_types: tuple[str, ...]
    spec_fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    block: Mapping[str, str]
    outside: Mapping[str, str]

    def block_key(self, block: int, name: str) -> str:
        """File key of tensor `name` (such as 'q_proj.weight') of one block."""
        layer, parameter = name.rsplit(".", 1)
        return self.block[layer].format(i=block) + "." + parameter


def _llada_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["n_heads"]
    return {
        "family": "llada",
        "hidden_size": config["d_model"],
        "layers": config["n_layers"],
        "heads": heads,
        "kv_heads": config.get("n_kv_heads") or heads,
        "head_dim": config["d_model"] // heads,
        "intermediate_size": config["mlp_hidden_size"],
        # embedding_size is the padded number of rows; vocab_size may be the smaller, used part.
        "vocab_size": config.get("embedding_size") or config["vocab_size"],
        "norm_eps": config.get("rms_norm_eps", 1e-5),
        "rope_theta": config.get("rope_theta", 10000.0),
        "mask_id": config["mask_token_id"],
        "eos_id": config["eos_token_id"],
        "pad_id": config.get("pad_token_id", config["eos_token_id"]),
        "bos_id": None,
        "shift": False,
        "qkv_bias": bool(config.get("include_qkv_bias") or config.get("include_bias")),
        "tied": bool(config.get("weight_tying")),
        "context_length": config["max_sequence_length"],
    }


def _dream_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    return {
        "family": "dream",
        "hidden_size": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": config.get("rope_theta") or rope["rope_theta"],
        "mask_id": config["mask_token_id"],
        "eos_id": config["eos_token_id"],
        "pad_id": config.get("pad_token_id", config["eos_token_id"]),
        "bos_id": config.get("bos_token_id"),
        "shift": True,
        "qkv_bias": True,
        "tied": bool(config.get("tie_word_embeddings")),
        "context_length": config["max_position_embeddings"],
    }


LLADA = Family(
    name="llada",
    model_types=("llada",),
    spec_fields=_llada_fields,
    block={
        "input_norm": "model.transformer.blocks.{i}.attn_norm",
        "q_proj": "model.transformer.blocks.{i}.q_proj",
        "k_proj": "model.transformer.blocks.{i}.k_proj",
        "v_proj": "model.transformer.blocks.{i}.v_proj",
        "o_proj": "model.transformer.blocks.{i}.attn_out",
        "post_norm": "model.transformer.blocks.{i}.ff_norm",
        "gate_proj": "model.transformer.blocks.{i}.ff_proj",
        "up_proj": "model.transformer.blocks.{i}.up_proj",
        "down_proj": "model.transformer.blocks.{i}.ff_out",
    },
    outside={
        "embedding.weight": "model.transformer.wte.weight",
        "norm.weight": "model.transformer.ln_f.weight",
        "head.weight": "model.transformer.ff_out.weight",
    },
)

DREAM = Family(
    name="dream",
    model_types=("Dream",),
    spec_fields=_dream_fields,
    block={
        "input_norm": "model.layers.{i}.input_layernorm",
        "q_proj": "model.layers.{i}.self_attn.q_proj",
        "k_proj": "model.layers.{i}.self_attn.k_proj",
        "v_proj": "model.layers.{i}.self_attn.v_proj",
        "o_proj": "model.layers.{i}.self_attn.o_proj",
        "post_norm": "model.layers.{i}.post_attention_layernorm",
        "gate_proj": "model.layers.{i}.mlp.gate_proj",
        "up_proj": "model.layers.{i}.mlp.up_proj",
        "down_proj": "model.layers.{i}.mlp.down_proj",
    },
    outside={
        "embedding.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    },
)

FAMILIES: dict[str, Family] = {family.name: family for family in (LLADA, DREAM)}
