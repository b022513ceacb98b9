"""The forward pass of dense masked-diffusion language models (LLaDA, Dream): bidirectional pre-norm blocks.

Own implementation, so that no remote code runs and no release of a modelling library changes numbers;
`tests/models/test_transformer.py` holds it to transformers' Llama and Qwen2 classes.
Norms and rotary embedding are computed in fp32 as the original models do, whatever the weights' dtype.
Does not protect against token ids outside the vocabulary (an index error of torch).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.spec import QKV, ModelSpec


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis; the mean square in fp32, cast back before the gain."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [..., L, head_dim] in fp32 of the half-split rotary embedding (arXiv 2104.09864)."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[..., None].float() * theta**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, H, L, D] in fp32, returned in x's dtype."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    """Attention and gated MLP, each pre-normed and residual. Linear layers carry dlq's standard names."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
        self.input_norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        self.post_norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        for name, (n_out, n_in) in spec.linears().items():
            bias = spec.qkv_bias and name in QKV
            self.add_module(name, nn.Linear(n_in, n_out, bias=bias))

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Full bidirectional attention of x [B, L, hidden]; mask [B, 1, L, L] is True where a key is seen."""
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(
            rotate(q, cos, sin),
            rotate(k, cos, sin),
            v,
            attn_mask=mask,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.input_norm(x), cos, sin, mask)
        h = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


def key_mask(attention_mask: Tensor | None) -> Tensor | None:
    """[B, L] True at real tokens -> [B, 1, L, L]: every query sees the real keys.

    Pad queries see the real keys too: a query row without any key would be NaN.
    """
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)


def positions_of(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Position of each token, [B, L] or [1, L], counted from the first real token of its row."""
    if attention_mask is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)


class MaskedDiffusionLM(nn.Module):
    """A whole model. Noise level is not an input: LLaDA and Dream are time-free."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied:
            self.head.weight = self.embedding.weight

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Normed final states [B, L, hidden] of input_ids [B, L]; attention_mask [B, L], True = real."""
        x = self.embedding(input_ids)
        positions = positions_of(input_ids, attention_mask)
        cos, sin = (t[:, None] for t in rotary(positions, self.spec.head_dim, self.spec.rope_theta))
        mask = key_mask(attention_mask)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Head output at every position, [B, L, vocab] fp32, not shifted."""
        return self.head(self.hidden(input_ids, attention_mask)).float()

    def predict(self, input_ids: Tensor, attention_mask: Tensor | None, where: Tensor) -> Tensor:
        """Logits [n, vocab] fp32 for the tokens at the positions `where` [B, L] bool, in row-major order.

        Applies the shift rule of the family. Raises ValueError when a shifted model is asked for its first
        token, which it cannot predict.
        """
        hidden = self.hidden(input_ids, attention_mask)
        if self.spec.shift:
            if bool(where[:, 0].any()):
                raise ValueError("a model with shifted logits cannot predict the first token of a row")
            where = where.roll(-1, dims=1)
        return self.head(hidden[where]).float()
