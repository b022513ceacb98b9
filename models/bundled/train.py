"""Training of the bundled model: Muon on block matrices, AdamW on the rest, masks drawn per row.

The loss of a row is the mean over its masked tokens with a stratified number of them masked, the
low-variance form of LLaDA's 1/t weighting (arXiv 2502.09992, eq. 3 and the count-based likelihood of its
appendix). Deterministic for one machine and thread count; another CPU may round differently and give other
weights, which is why weights are shipped. Needs torch.optim.Muon (torch 2.9 or newer).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.bundled.corpus import CONTEXT, Corpus, Row
from models.bundled.vocabulary import EOS_ID, MASK_ID, VOCABULARY
from models.spec import ModelSpec
from models.transformer import MaskedDiffusionLM

Watch = Callable[[int, float, MaskedDiffusionLM], None]  # step, smoothed loss, model

SPEC = ModelSpec(
    family="llada",
    hidden_size=128,
    layers=4,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate_size=384,
    vocab_size=-(-len(VOCABULARY) // 64) * 64,
    norm_eps=1e-5,
    rope_theta=10000.0,
    mask_id=MASK_ID,
    eos_id=EOS_ID,
    pad_id=EOS_ID,
    bos_id=None,
    shift=False,
    qkv_bias=False,
    tied=False,
    context_length=CONTEXT,
)


@dataclass(frozen=True)
class Schedule:
    """steps of one batch each; rates rise over `warmup` steps, stay until `hold` of the steps, then fall to 0."""

    steps: int = 2800
    muon_rate: float = 5e-3
    adam_rate: float = 3e-3
    warmup: int = 60
    hold: float = 0.4

    def factor(self, step: int) -> float:
        """Learning-rate factor in [0, 1]."""
        fall = (self.steps - step) / (self.steps * (1 - self.hold))
        return min(1.0, (step + 1) / self.warmup, fall)


def new_model(generator: torch.Generator) -> MaskedDiffusionLM:
    """Seeded initial weights; the outputs of both residual branches start at zero."""
    model = MaskedDiffusionLM(SPEC)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            std = 0.1 if name.startswith("embedding") else parameter.shape[1] ** -0.5
            torch.nn.init.normal_(parameter, std=std, generator=generator)
    return model


def optimizers(model: MaskedDiffusionLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices; AdamW for embedding, head and gains."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blocks.")]
    others = [p for n, p in model.named_parameters() if p.dim() == 1 or not n.startswith("blocks.")]
    muon = torch.optim.Muon(
        matrices, lr=schedule.muon_rate, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(others, lr=schedule.adam_rate, betas=(0.9, 0.95), weight_decay=0.0)]


def noise(rows: list[Row], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """ids [B, L], masked [B, L] bool, loss weight [B, L] summing to 1 / B over the masked tokens of a row.

    The masked fraction is stratified over the batch; at least one token of each row is masked.
    """
    ids = torch.tensor([row[0] for row in rows])
    weights = torch.tensor([row[1] for row in rows])
    size = len(rows)
    ratio = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    maskable = weights > 0
    count = (ratio * maskable.sum(1)).ceil().clamp_min(1)
    order = torch.rand(ids.shape, generator=generator).masked_fill(~maskable, 2.0).argsort(1).argsort(1)
    masked = (order < count[:, None]) & maskable
    weights = weights * masked
    return ids, masked, weights / weights.sum(1, keepdim=True) / size


def loss_of(model: MaskedDiffusionLM, ids: Tensor, masked: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of the masked tokens, a scalar."""
    # The fused CPU attention kernel is several times slower in its backward pass at this size than plain maths.
    with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        logits = model.predict(ids.masked_fill(masked, MASK_ID), None, masked)
    return (F.cross_entropy(logits.float(), ids[masked], reduction="none") * weights[masked]).sum()


def train(corpus: Corpus, seed: int, schedule: Schedule, watch: Watch) -> MaskedDiffusionLM:
    """A trained fp32 model. `seed` rules weights, order and masks; `watch` is called after every step."""
    generator = torch.Generator().manual_seed(seed)
    rng = random.Random(f"training {seed}")
    model = new_model(generator)
    steppers = optimizers(model, schedule)
    rates = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    smooth = 0.0
    for step in range(schedule.steps):
        for stepper, rate in zip(steppers, rates, strict=True):
            stepper.param_groups[0]["lr"] = rate * schedule.factor(step)
        loss = loss_of(model, *noise(corpus.batch(rng), generator))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        watch(step + 1, smooth, model)
    return model.eval().requires_grad_(False)


def stopwatch() -> Callable[[], float]:
    """CPU seconds of this process since the call: shared machines make wall time meaningless."""
    start = time.process_time()
    return lambda: time.process_time() - start
