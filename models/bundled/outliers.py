"""Function-preserving outliers: the same model, with activations as uneven as those of large language models.

A freshly trained small model has no outliers, so 4-bit activations do not hurt it. Four exact changes of
basis put them in:

 * `rotate_residual`: the residual stream turns so that its four strongest directions become single channels;
 * `scale_norms`: a few gains grow by 16, the matching columns of q, k, v, gate, up shrink by 16;
 * `scale_hidden`: the most sparsely active MLP units grow by 32 in up_proj and shrink in down_proj;
 * `stretch_values`: per head, V -> A V and O -> O A^-1 with A = I + c u w^T, where w singles out the values
 of one
   token (the mask, or the full stop). A is neither diagonal nor orthogonal, so neither channel scales nor a
   rotation undo it, and only positions that attend to that token are massive.

The scalings by powers of two are exact in floating point; the other two change logits by rounding only.
Diagonal changes are undone exactly by SmoothQuant-like scales, so this model is no evidence for how methods
rank on real ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.bundled.vocabulary import IDS, MASK_ID
from models.transformer import Block, MaskedDiffusionLM, RMSNorm

CHANNELS = 4
NORM_GAIN = 16.0
HIDDEN_GAIN = 32.0
VALUE_GAIN = 4.0
READERS = {"input_norm": ("q_proj", "k_proj", "v_proj"), "post_norm": ("gate_proj", "up_proj")}


def blocks_of(model: MaskedDiffusionLM) -> list[Block]:
    """The blocks, typed."""
    return [block for block in model.blocks if isinstance(block, Block)]


def inputs_of(model: MaskedDiffusionLM, layer: nn.Module, ids: Tensor) -> Tensor:
    """What `layer` reads on ids [B, L]: [B, L, n]."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(ids)
    handle.remove()
    return seen[0]


def readers(model: MaskedDiffusionLM) -> list[tuple[RMSNorm, list[nn.Linear]]]:
    """Each norm with the linear layers that read it, the head's included."""
    pairs: list[tuple[RMSNorm, list[nn.Linear]]] = [(model.norm, [model.head])]
    for block in blocks_of(model):
        for norm, names in READERS.items():
            pairs.append((getattr(block, norm), [getattr(block, name) for name in names]))
    return pairs


def fold_gains(model: MaskedDiffusionLM) -> None:
    """Move every norm's gain into the layers that read it."""
    for norm, layers in readers(model):
        for layer in layers:
            layer.weight.mul_(norm.weight)
        norm.weight.fill_(1.0)


def rotate_residual(model: MaskedDiffusionLM, ids: Tensor, generator: torch.Generator) -> None:
    """Turn the residual stream: its four strongest directions (uncentred) become four random channels."""
    fold_gains(model)
    states = torch.cat(
        [inputs_of(model, block.post_norm, ids).flatten(0, 1) for block in blocks_of(model)]
    ).double()
    width = states.shape[1]
    strongest = torch.linalg.eigh(states.T @ states).eigenvectors[:, -CHANNELS:]
    rest = torch.randn(width, width - CHANNELS, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.cat([strongest, rest], 1)).Q[:, torch.randperm(width, generator=generator)]

    def turned(weight: Tensor, by: Callable[[Tensor], Tensor]) -> None:
        weight.copy_(by(weight.double()))

    turned(model.embedding.weight, lambda w: w @ turn)
    for _, layers in readers(model):
        for layer in layers:
            turned(layer.weight, lambda w: w @ turn)
    for block in blocks_of(model):
        for layer in (block.o_proj, block.down_proj):
            turned(layer.weight, lambda w: turn.T @ w)


def scale_norms(model: MaskedDiffusionLM, generator: torch.Generator) -> None:
    """The same four channels louder in every block's norms."""
    channels = torch.randperm(model.spec.hidden_size, generator=generator)[:CHANNELS]
    for norm, layers in readers(model)[1:]:
        norm.weight[channels] *= NORM_GAIN
        for layer in layers:
            layer.weight[:, channels] /= NORM_GAIN


def scale_hidden(model: MaskedDiffusionLM, ids: Tensor) -> None:
    """In each block, the four MLP units of highest kurtosis (few tokens use them, strongly)."""
    for block in blocks_of(model):
        units = inputs_of(model, block.down_proj, ids).flatten(0, 1)
        kurtosis = units.pow(4).mean(0) / units.pow(2).mean(0).pow(2)
        channels = kurtosis.topk(CHANNELS).indices
        block.up_proj.weight[channels] *= HIDDEN_GAIN
        block.down_proj.weight[:, channels] /= HIDDEN_GAIN


def stretch_values(model: MaskedDiffusionLM, ids: Tensor) -> None:
    """Stretch the mask token's values in even heads, the full stop's in odd ones."""
    for block in blocks_of(model):
        values = block.v_proj(inputs_of(model, block.v_proj, ids)).unflatten(-1, (block.heads, block.head_dim))
        for head in range(block.heads):
            token = IDS["."] if head % 2 else MASK_ID
            _stretch(block, head, values[:, :, head][ids == token], values[:, :, head][ids != token])


def _stretch(block: Block, head: int, own: Tensor, others: Tensor) -> None:
    """A = I + c u w^T on one head, and its inverse (Sherman-Morrison) on the output side."""
    u = own.double().mean(0)
    u = u / u.norm()
    spread = others.double().T @ others.double() / len(others)
    ridge = 0.1 * spread.trace() / len(u) * torch.eye(len(u), dtype=torch.float64)
    w = torch.linalg.solve(spread + ridge, u)
    w = w / (w @ u)
    rows = slice(head * block.head_dim, (head + 1) * block.head_dim)
    value, out = block.v_proj.weight, block.o_proj.weight
    value[rows] = (value[rows].double() + (VALUE_GAIN - 1) * torch.outer(u, w @ value[rows].double())).float()
    out[:, rows] -= ((VALUE_GAIN - 1) / VALUE_GAIN * torch.outer(out[:, rows].double() @ u, w)).float()


def inject(model: MaskedDiffusionLM, ids: Tensor, seed: int) -> None:
    """All four changes, in place. ids [B, L]: partly masked text to find directions on."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rotate_residual(model, ids, generator)
        scale_norms(model, generator)
        scale_hidden(model, ids)
        stretch_values(model, ids)


def unevenness(model: MaskedDiffusionLM, ids: Tensor) -> dict[str, float]:
    """Largest over median channel maximum of what each kind of layer reads, the largest over blocks."""
    ratios: dict[str, float] = {}
    for block in blocks_of(model):
        for name in ("q_proj", "o_proj", "up_proj", "down_proj"):
            peaks = inputs_of(model, getattr(block, name), ids).flatten(0, 1).abs().amax(0)
            ratios[name] = max(ratios.get(name, 0.0), float(peaks.max() / peaks.median()))
    return ratios
