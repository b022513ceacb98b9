"""Calibrate: statistics of the inputs of one block's linear layers, on masked sequences.

One block is in memory at a time; activations between blocks live on disk as an artifact. The forward pass is the
model's own (bidirectional, no padding), which tests/workers/test_calibrate.py holds it to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.calibration import sequences
from models.checkpoint import Checkpoint
from models.masking import apply_masks
from models.spec import SITES
from models.transformer import Block, rotary
from pipeline.cells import calibration_columns
from pipeline.tasks import Calibrate
from quant.recipe import rebuild
from quant.statistics import LayerStatistics, StatisticsCollector
from storage.artifacts import Store
from storage.tables import write_table
from workers.loading import Memory, checkpoint_of, quantized_block

BATCH_TOKENS = 4096  # tokens per forward pass; fixed, because the order of summation is part of the result


def calibrate(task: Calibrate, store: Store, memory: Memory, folder: Path, facts: dict[str, Any]) -> None:
    """Write statistics.safetensors, activations.safetensors and activations.parquet into `folder`."""
    checkpoint = checkpoint_of(task.model)
    entering = entering_activations(task, store, checkpoint)
    block = checkpoint.block(task.block).to(task.model.device)
    collectors = {site: StatisticsCollector(n, seed=task.calibration.seed) for site, n in _widths(task).items()}
    fitted = task.calibration.samples
    leaving = [_watched(block, collectors, entering[:fitted], "add", task)]
    leaving.append(_watched(block, collectors, entering[fitted:], "add_held_out", task))
    statistics = {site: collector.finish() for site, collector in collectors.items()}
    kept = torch.cat(leaving) if task.propagation == "parallel" else entering
    save_file({"activations": kept.contiguous()}, folder / "activations.safetensors")
    tensors = {f"{site}.{n}": t for site, s in statistics.items() for n, t in s.to_tensors().items()}
    save_file(tensors, folder / "statistics.safetensors")
    write_table(folder / "activations.parquet", "activations", [_row(task, k, s) for k, s in statistics.items()])
    facts["tokens"] = int(entering.shape[0] * entering.shape[1])


def read_statistics(path: Path) -> dict[str, LayerStatistics]:
    """Site -> statistics, as `calibrate` wrote them."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        site, part = name.split(".", 1)
        grouped.setdefault(site, {})[part] = tensor
    return {site: LayerStatistics.from_tensors(parts) for site, parts in grouped.items()}


def entering_activations(task: Calibrate, store: Store, checkpoint: Checkpoint) -> Tensor:
    """What enters the block, [samples + held_out, length, hidden], in the model's dtype, on the CPU."""
    if task.previous is None:
        calibration, spec = task.calibration, task.model.spec
        ids = sequences(calibration, Path(task.model.folder) / "tokenizer.json", spec.eos_id)
        masked = apply_masks(ids, spec.mask_id, calibration.masking, calibration.seed, calibration.prefix_ratio)
        return checkpoint.outside()["embedding.weight"][masked]
    kept = load_file(store.open(task.previous).file("activations.safetensors"))["activations"]
    if task.quantized is None:
        return kept
    recipe = rebuild(store.open(task.quantized).manifest.spec["recipe"])
    block = quantized_block(store, checkpoint, task.block - 1, task.quantized, recipe)
    return torch.cat(list(forward(block.to(task.model.device), kept, task)))


@torch.no_grad()
def forward(block: Block, x: Tensor, task: Calibrate) -> Iterator[Tensor]:
    """Block outputs of x [N, L, hidden], a few sequences at a time, on the CPU."""
    spec, length = task.model.spec, x.shape[1]
    positions = torch.arange(length, device=task.model.device)[None]
    cos, sin = (t[:, None] for t in rotary(positions, spec.head_dim, spec.rope_theta))
    for batch in torch.split(x, max(1, BATCH_TOKENS // length)):
        yield block(batch.to(task.model.device), cos, sin, None).cpu()


def _watched(
    block: Block, collectors: dict[str, StatisticsCollector], x: Tensor, method: str, task: Calibrate
) -> Tensor:
    with _watching(block, collectors, method):
        return torch.cat(list(forward(block, x, task)))


@contextmanager
def _watching(block: Block, collectors: dict[str, StatisticsCollector], method: str) -> Iterator[None]:
    """Feed each site's collector from the first linear layer that reads the site."""
    first = {site: layer for layer, site in reversed(SITES.items())}
    handles = []
    for site, layer in first.items():
        take = getattr(collectors[site], method)

        def hook(_: nn.Module, args: tuple[Tensor, ...], take: Any = take) -> None:
            take(args[0])

        handles.append(block.get_submodule(layer).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widths(task: Calibrate) -> dict[str, int]:
    return {SITES[layer]: n_in for layer, (_, n_in) in task.model.spec.linears().items()}


def _row(task: Calibrate, site: str, statistics: LayerStatistics) -> dict[str, Any]:
    sample = statistics.sample.double()
    spread = sample.std()
    median = statistics.absmax.median().clamp_min(torch.finfo(torch.float32).tiny)
    return {
        "model_hash": task.model.weights,
        "block": task.block,
        "site": site,
        **calibration_columns(task.calibration),
        "propagation": task.propagation,
        "tokens": statistics.tokens,
        "absmax": float(statistics.absmax.max()),
        "mean_abs": float(statistics.mean_abs.mean()),
        "kurtosis": float(((sample - sample.mean()) / spread).pow(4).mean()) if spread > 0 else None,
        "outlier_ratio": float(statistics.absmax.max() / median),
    }
