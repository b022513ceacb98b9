"""Calibration sees what the model sees: its own forward pass on the same masked tokens, and exact statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.calibration import CalibrationError, sequences
from models.checkpoint import load_model
from models.masking import apply_masks
from models.spec import SITES
from pipeline.plan import make_plan
from pipeline.tasks import Calibrate, Quantize
from storage.artifacts import Store
from workers.calibrate import entering_activations, read_statistics
from workers.loading import Memory, checkpoint_of, quantized_block
from workers.units import run


@pytest.fixture
def chain(grid_file: Callable[..., Path], tmp_path: Path) -> tuple[Store, list[Calibrate], list[Quantize]]:
    """The sequential chain of a 2-bit GPTQ recipe, run."""
    method = {"method": "gptq", "wbits": 2, "group_size": 32, "propagation": "sequential"}
    plan = make_plan(str(grid_file(methods=[method])))
    store = Store(tmp_path / "store")
    kept = [t for t in plan.tasks.values() if t.kind in ("calibrate", "quantize")]
    for task in kept:
        run(task, store, Memory())
    return store, [t for t in kept if isinstance(t, Calibrate)], [t for t in kept if isinstance(t, Quantize)]


def inputs_of(model: torch.nn.Module, ids: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Inputs of every site of every block in the model's own forward pass, as float64 [tokens, n]."""
    seen: list[dict[str, torch.Tensor]] = [{} for _ in model.blocks]  # type: ignore[union-attr,arg-type]
    for i, block in enumerate(model.blocks):  # type: ignore[union-attr,arg-type]
        for layer, site in SITES.items():

            def hook(_: torch.nn.Module, args: tuple[torch.Tensor], i: int = i, site: str = site) -> None:
                seen[i][site] = args[0].double().flatten(0, 1)

            block.get_submodule(layer).register_forward_pre_hook(hook)
    with torch.no_grad():
        model(ids)
    return seen


def test_statistics_are_those_of_the_models_own_forward(grid_file: Callable[..., Path], tmp_path: Path) -> None:
    plan = make_plan(str(grid_file(methods=[{"method": "gptq", "wbits": 2, "group_size": 32}])))
    tasks = [t for t in plan.tasks.values() if isinstance(t, Calibrate)]
    store = Store(tmp_path / "store")
    for task in tasks:
        run(task, store, Memory())
    model, setting = tasks[0].model, tasks[0].calibration
    ids = sequences(setting, Path(model.folder) / "tokenizer.json", model.spec.eos_id)[: setting.samples]
    masked = apply_masks(ids, model.spec.mask_id, setting.masking, setting.seed)
    assert 0.2 < (masked == model.spec.mask_id).float().mean() < 0.8
    seen = inputs_of(load_model(model.folder), masked)
    for task in tasks:
        found = read_statistics(store.open(task.key).file("statistics.safetensors"))
        assert found.keys() == set(SITES.values())
        for site, statistics in found.items():
            x = seen[task.block][site]
            assert statistics.tokens == len(x)
            gram = x.T @ x
            assert (statistics.gram.double() - gram).norm() <= 1e-5 * gram.norm()
            torch.testing.assert_close(statistics.absmax.double(), x.abs().amax(0), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(statistics.mean_abs.double(), x.abs().mean(0), rtol=1e-4, atol=1e-5)


def test_sequential_blocks_see_the_quantized_prefix(chain: tuple[Store, list[Calibrate], list[Quantize]]) -> None:
    store, calibrates, quantizes = chain
    checkpoint = checkpoint_of(calibrates[0].model)
    model = load_model(calibrates[0].model.folder)
    for i, task in enumerate(quantizes):
        model.blocks[i] = quantized_block(store, checkpoint, i, task.key, task.recipe)
    setting, spec = calibrates[0].calibration, model.spec
    ids = sequences(setting, Path(calibrates[0].model.folder) / "tokenizer.json", spec.eos_id)
    entered: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        model(apply_masks(ids, spec.mask_id, setting.masking, setting.seed))
    for i, task in enumerate(calibrates):
        with torch.no_grad():
            x = entering_activations(task, store, checkpoint)
        assert (x - entered[i]).norm() <= 1e-5 * entered[i].norm(), i


def test_too_little_text_is_one_clear_line(
    grid_file: Callable[..., Path], workspace: Path, tmp_path: Path
) -> None:
    calibration = {"masked": {"data": str(workspace / "calibration.jsonl"), "samples": 5000, "length": 32}}
    methods = [{"method": "rtn", "group_size": 32}]
    plan = make_plan(str(grid_file(calibration=calibration, methods=methods)))
    task = next(t for t in plan.tasks.values() if isinstance(t, Calibrate))
    with pytest.raises(CalibrationError, match=r"needs 5016 sequences of 32 tokens.*holds 128"):
        run(task, Store(tmp_path / "store"), Memory())
