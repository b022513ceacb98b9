"""How each family spells its config fields and tensor names; the only place that knows.

LLaDA (arXiv 2502.09992): a Llama block under OLMo names; `model.transformer.ff_out` is the LM head while
`blocks.i.ff_out` is the down projection, so names are matched whole, never by suffix.
Dream (arXiv 2508.15487): Qwen2 names, biases on q/k/v, logits shifted by one.
Does not protect against a field that changes the maths and is not in a table below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Names of one family. `block` maps dlq's tensor names inside block i to the file's; {i} is the block.

    implemented: fields that change what the model computes -> the values that dlq computes. A field of a nested
    object is written with a dot; a field that is absent counts as implemented.
    """

    name: str
    model_types: tuple[str, ...]
    spec_fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    block: Mapping[str, str]
    outside: Mapping[str, str]
    implemented: Mapping[str, tuple[Any, ...]]

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a ModelSpec. Raises KeyError for a missing field, ValueError naming a refused one."""
        for field, values in self.implemented.items():
            outer, _, inner = field.rpartition(".")
            place = _object(config, outer) if outer else config
            if inner in place and place[inner] not in values:
                wanted = " or ".join(repr(value) for value in values)
                raise ValueError(f"{field} is {place[inner]!r}, dlq computes {self.name} with {wanted} only")
        return self.spec_fields(config)

    def block_key(self, block: int, name: str) -> str:
        """File key of tensor `name` (such as 'q_proj.weight') of one block."""
        layer, parameter = name.rsplit(".", 1)
        return self.block[layer].format(i=block) + "." + parameter


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {value!r}")
    return value or {}


def _count(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number of 1 or more; absent or null stands for the default where there is one."""
    value = config[name] if default is None else config.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return value


def _number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number above 0."""
    value = config[name] if default is None else config.get(name, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def _flag(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name)
    if value is not None and type(value) is not bool:
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return bool(value)


def _token(config: Mapping[str, Any], name: str) -> int:
    """One token id; whether it lies inside the vocabulary is checked with the spec."""
    value = config[name]
    if type(value) is not int:
        raise ValueError(f"{name} must be one token id, got {value!r}")
    return value


def _optional_token(config: Mapping[str, Any], name: str) -> int | None:
    return None if config.get(name) is None else _token(config, name)


def _pad(config: Mapping[str, Any], eos_id: int) -> int:
    pad_id = _optional_token(config, "pad_token_id")
    return eos_id if pad_id is None else pad_id


def _split(config: Mapping[str, Any], width: str, heads: str) -> int:
    """Features of one head."""
    features, rest = divmod(_count(config, width), _count(config, heads))
    if rest:
        raise ValueError(f"{width} {config[width]} is not a multiple of {heads} {config[heads]}")
    return features


def _llada_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    heads, eos_id = _count(config, "n_heads"), _token(config, "eos_token_id")
    return {
        "family": "llada",
        "hidden_size": _count(config, "d_model"),
        "layers": _count(config, "n_layers"),
        "heads": heads,
        "kv_heads": _count(config, "n_kv_heads", heads),
        "head_dim": _split(config, "d_model", "n_heads"),
        "intermediate_size": _count(config, "mlp_hidden_size"),
        # embedding_size is the padded number of rows; vocab_size may be the smaller, used part.
        "vocab_size": _count(config, "embedding_size", _count(config, "vocab_size")),
        "norm_eps": _number(config, "rms_norm_eps", 1e-5),
        "rope_theta": _number(config, "rope_theta", 10000.0),
        "mask_id": _token(config, "mask_token_id"),
        "eos_id": eos_id,
        "pad_id": _pad(config, eos_id),
        "bos_id": None,
        "shift": False,
        "qkv_bias": _flag(config, "include_qkv_bias"),
        "tied": _flag(config, "weight_tying"),
        "context_length": _count(config, "max_sequence_length"),
    }


def _dream_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    heads, eos_id = _count(config, "num_attention_heads"), _token(config, "eos_token_id")
    own_head_dim = config.get("head_dim") is not None
    rope = _object(config, "rope_parameters") if config.get("rope_theta") is None else config
    return {
        "family": "dream",
        "hidden_size": _count(config, "hidden_size"),
        "layers": _count(config, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": _count(config, "num_key_value_heads", heads),
        "head_dim": _count(config, "head_dim")
        if own_head_dim
        else _split(config, "hidden_size", "num_attention_heads"),
        "intermediate_size": _count(config, "intermediate_size"),
        "vocab_size": _count(config, "vocab_size"),
        "norm_eps": _number(config, "rms_norm_eps"),
        "rope_theta": _number(rope, "rope_theta"),
        "mask_id": _token(config, "mask_token_id"),
        "eos_id": eos_id,
        "pad_id": _pad(config, eos_id),
        "bos_id": _optional_token(config, "bos_token_id"),
        "shift": True,
        "qkv_bias": True,
        "tied": _flag(config, "tie_word_embeddings"),
        "context_length": _count(config, "max_position_embeddings"),
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
    implemented={
        "block_type": ("llama",),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "bias_for_layer_norm": (False, None),
        "attention_layer_norm": (False, None),
        "input_emb_norm": (False, None),
        "rope": (True,),
        "alibi": (False, None),
        "multi_query_attention": (False, None),
        "clip_qkv": (None,),
        "include_bias": (False, None),
        "scale_logits": (False, None),
        "quantization_config": (None,),
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
    implemented={
        "hidden_act": ("silu",),
        "use_sliding_window": (False, None),
        "use_mrope": (False, None),
        "rope_scaling": (None,),
        "rope_parameters.rope_type": ("default",),
        "rope_parameters.partial_rotary_factor": (1, None),
        "quantization_config": (None,),
    },
)

FAMILIES: dict[str, Family] = {family.name: family for family in (LLADA, DREAM)}
