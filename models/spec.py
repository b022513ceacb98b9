"""What a masked-diffusion language model is, as plain data read from its config.json.

Everything that differs between families (special ids, the shift rule, biases, tensor names) is a field
here or in `models.families`; nothing is ever guessed from a path. Torch-free, so that planning stays light.
Does not protect against a config.json that describes other weights than the ones beside it:
`models.checkpoint` compares the shapes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import FAMILIES, Family


class ModelError(ValueError):
    """A checkpoint that cannot be used; the message is one line and says what to do."""


@dataclass(frozen=True)
class ModelSpec:
    """Shape and conventions of one dense masked-diffusion LM.

    shift: the hidden state at position i predicts token i + 1 (Dream) instead of token i (LLaDA).
    mask_id, eos_id, pad_id, bos_id: token ids; bos_id is None where the family adds none.
    context_length: longest sequence, in tokens, that the model was trained on.
    """

    family: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    mask_id: int
    eos_id: int
    pad_id: int
    bos_id: int | None
    shift: bool
    qkv_bias: bool
    tied: bool
    context_length: int

    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (n_out, n_in)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, ff = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (queries, hidden),
            "k_proj": (keys, hidden),
            "v_proj": (keys, hidden),
            "o_proj": (hidden, queries),
            "gate_proj": (ff, hidden),
            "up_proj": (ff, hidden),
            "down_proj": (hidden, ff),
        }

    def block_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of one block by dlq's name, such as 'q_proj.weight'."""
        shapes: dict[str, tuple[int, ...]] = {
            "input_norm.weight": (self.hidden_size,),
            "post_norm.weight": (self.hidden_size,),
        }
        for name, (n_out, n_in) in self.linears().items():
            shapes[f"{name}.weight"] = (n_out, n_in)
            if self.qkv_bias and name in QKV:
                shapes[f"{name}.bias"] = (n_out,)
        return shapes

    def outside_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that belong to no block: embedding, final norm and, unless tied, the LM head."""
        table = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": table, "norm.weight": (self.hidden_size,)}
        return shapes if self.tied else {**shapes, "head.weight": table}


QKV = ("q_proj", "k_proj", "v_proj")

# Linear layers that read the same tensor share one set of statistics, kept under the site's name.
SITES: dict[str, str] = {
    "q_proj": "attention_input",
    "k_proj": "attention_input",
    "v_proj": "attention_input",
    "o_proj": "attention_output",
    "gate_proj": "mlp_input",
    "up_proj": "mlp_input",
    "down_proj": "mlp_output",
}

# Their outputs meet in the product of attention scores, so the error of one alone says little.
SCORE_LAYERS = frozenset({"q_proj", "k_proj"})

# The norm that a site comes out of; the other sites lie inside the block.
NORMS: dict[str, str] = {"attention_input": "input_norm", "mlp_input": "post_norm"}

# Layers whose outputs are added to the residual stream.
RESIDUAL_LAYERS = ("o_proj", "down_proj")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder; ModelError when there is none or it is not JSON."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json: give a checkpoint folder or a hub name") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object")
    return config


def family_of(config: dict[str, Any]) -> Family:
    """The family named by `model_type`; autoregressive and unknown types are refused with the reason."""
    model_type = str(config.get("model_type", ""))
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(t for f in FAMILIES.values() for t in f.model_types))
    raise ModelError(f"model_type {model_type!r} is not a masked-diffusion family dlq knows (known: {known})")


def read_spec(folder: str | Path) -> ModelSpec:
    """ModelSpec of a checkpoint folder in its family's own layout.

    Raises ModelError, one line, for a missing or foreign config, a missing mask token, a missing field, a field of
    the wrong type, or one whose value dlq does not compute.
    """
    path = Path(folder) / "config.json"
    config = read_config(Path(folder))
    family = family_of(config)
    if config.get("mask_token_id") is None:
        raise ModelError(f"{path} has no mask_token_id: a masked-diffusion model needs one")
    try:
        spec = ModelSpec(**family.read(config))
        _check(spec)
    except KeyError as error:
        raise ModelError(f"{path} lacks the field {error} of {family.name}") from None
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    return spec


def _check(spec: ModelSpec) -> None:
    """Raise ValueError for the first field that contradicts another."""
    for name in ("mask", "eos", "pad", "bos"):
        token = getattr(spec, f"{name}_id")
        if token is not None and not 0 <= token < spec.vocab_size:
            raise ValueError(f"{name}_token_id {token} lies outside the vocabulary of {spec.vocab_size}")
    if spec.heads % spec.kv_heads:
        raise ValueError(f"{spec.heads} heads cannot share {spec.kv_heads} key/value heads evenly")
    if spec.head_dim % 2:
        raise ValueError(f"head_dim {spec.head_dim} is odd, rotary embedding needs an even one")
