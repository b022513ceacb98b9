"""Make the bundled model from seeds: data, training, outliers, files, model card.

    python -m models.bundled --seed 0 --training-seeds 0 1 2 --work build/bundled --out models/bundled

Trained models are kept in --work and not trained again, so seeds may also be trained side by side, one
process each with --train-only. Does not protect against a --work folder trained from another version of the
corpus: remove it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from models.bundled import card, damage, files, measure, outliers, train
from models.bundled.corpus import CONTEXT, Corpus
from models.bundled.vocabulary import MASK_ID, VOCABULARY, encode
from models.checkpoint import load_model, save_checkpoint
from models.transformer import MaskedDiffusionLM

COUNT, DAMAGE_COUNT, DRAWS = 500, 200, 8
LOGIT_TOLERANCE = {"fp32": 2e-3, "fp16": 0.25}


def trained(corpus: Corpus, seed: int, work: Path) -> Path:
    """Folder of the plain trained model of one training seed, with its scores.json."""
    folder = work / f"seed-{seed}"
    if not (folder / "scores.json").exists():
        seconds = train.stopwatch()
        model = train.train(corpus, seed, train.Schedule(), _report)
        minutes = seconds() / 60
        save_checkpoint(model, folder, files.llada_config(train.SPEC, len(VOCABULARY)), torch.float32)
        scores = measure.scores(model, corpus, COUNT, DRAWS)
        (folder / "scores.json").write_text(json.dumps({**scores, "cpu_minutes": minutes}) + "\n")
    return folder


def _report(step: int, loss: float, model: MaskedDiffusionLM) -> None:
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.3f}", file=sys.stderr, flush=True)


def probe(corpus: Corpus) -> Tensor:
    """Half-masked calibration text [256, CONTEXT]: what outliers are found and measured on."""
    ids = torch.tensor([encode(text) for text in corpus.calibration(256)])
    hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    return ids.masked_fill(hidden, MASK_ID)


@torch.no_grad()
def ship(corpus: Corpus, plain: Path, out: Path) -> tuple[MaskedDiffusionLM, str]:
    """Inject, save as fp16, check against the plain model; the shipped model and the card's section on it."""
    ids = probe(corpus)
    model = load_model(plain)
    before, logits = outliers.unevenness(model, ids), model(ids)
    outliers.inject(model, ids, corpus.seed)
    differences = {"fp32": float((model(ids) - logits).abs().max()), "logits": float(logits.abs().max())}
    config = files.llada_config(train.SPEC, len(VOCABULARY))
    save_checkpoint(model, out / "checkpoint", config, torch.float16)
    files.write_checkpoint_folder(out / "checkpoint")
    shipped = load_model(out / "checkpoint")
    differences["fp16"] = float((shipped(ids) - logits).abs().max())
    print(f"largest logit differences: {differences}", file=sys.stderr)
    for name, limit in LOGIT_TOLERANCE.items():
        if differences[name] > limit:
            raise SystemExit(f"injection changed the {name} logits by {differences[name]:.3g}, over {limit}")
    return shipped, card.outliers_section(before, outliers.unevenness(shipped, ids), differences)


def head(corpus: Corpus, model: MaskedDiffusionLM, weights: Path) -> str:
    """The card's first sections."""
    spec = model.spec
    return card.HEAD.format(
        words=len(VOCABULARY),
        seed=corpus.seed,
        hidden=spec.hidden_size,
        layers=spec.layers,
        heads=spec.heads,
        ff=spec.intermediate_size,
        vocab=spec.vocab_size,
        context=CONTEXT,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        steps=train.Schedule().steps,
    )


def main() -> None:
    """Parse the command line and make everything that is missing."""
    parser = argparse.ArgumentParser(prog="python -m models.bundled", description="Make the bundled model.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus, the items and the outliers")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0, 1, 2], help="the first is shipped")
    parser.add_argument("--work", type=Path, default=Path("build/bundled"), help="where trained models are kept")
    parser.add_argument("--out", type=Path, default=files.HERE)
    parser.add_argument("--tasks", type=Path, default=files.HERE.parent.parent / "evaluation/tasks/data")
    parser.add_argument("--train-only", action="store_true", help="train and measure, ship nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(arguments.seed)
    folders = {seed: trained(corpus, seed, arguments.work) for seed in arguments.training_seeds}
    if arguments.train_only:
        return
    files.write_data(corpus, arguments.tasks, arguments.out / "data" / "calibration.jsonl")
    first = arguments.training_seeds[0]
    shipped, outlier_text = ship(corpus, folders[first], arguments.out)
    seeds = {str(seed): json.loads((folder / "scores.json").read_text()) for seed, folder in folders.items()}
    scores = card.scores_section(seeds, str(first), measure.scores(shipped, corpus, COUNT, DRAWS), COUNT, DRAWS)
    weights = arguments.out / "checkpoint" / "model.safetensors"
    cells = damage.damage(shipped, corpus, DAMAGE_COUNT, DRAWS)
    damage_text = card.damage_section(cells, DAMAGE_COUNT, DRAWS, damage.CALIBRATION_ROWS)
    text = head(corpus, shipped, weights) + scores + outlier_text + damage_text
    (arguments.out / "MODEL_CARD.md").write_text(text)


if __name__ == "__main__":
    main()
