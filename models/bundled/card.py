"""The model card: what the bundled model is, how it was made and what it measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from models.bundled.corpus import TASKS
from models.bundled.outliers import HIDDEN_GAIN, NORM_GAIN, VALUE_GAIN

HEAD = """# Bundled model

A small LLaDA-style masked-diffusion language model (arXiv 2502.09992), trained from nothing on a made-up
language, so that quantization effects can be measured in minutes without any download. It is a probe for
quantization damage, not a language model for use: it knows {words} words.

Made by `make bundled-model` (`python -m models.bundled --seed {seed}`); weights in `checkpoint/` in LLaDA's
Hugging Face layout (fp16 safetensors, word-level fast tokenizer), `checkpoint/SHA256SUMS` beside them.

## Shape

hidden {hidden}, {layers} blocks, {heads} heads, MLP {ff}, vocabulary {vocab} rows, context {context} tokens,
{parameters:.2f} M parameters, untied head, no biases, {megabytes:.1f} MB.

## Training

{steps} steps of 64 rows of {context} tokens, Muon and AdamW, bf16 autocast, one CPU thread. Text is drawn
on the fly: sentences, packed questions and single questions of four families. Loss: cross-entropy of a
stratified number of masked tokens per row.

## Tasks

| task | kind | what is held out of training |
|---|---|---|
| facts | 4 choices of 2 tokens | nothing: facts are memorised by design |
| sense | 4 choices of 4 tokens | the (object, adjective) pair of every item |
| arithmetic | generation, exact match | the chain of numbers and signs, any wording; one-step sums are trained |
| code | generation, exact match | the program with its input; every operation is trained on other inputs |

Held out means: SHA-256 of the canonical problem, modulo 100, below 15. A test holds the data files to it.
Wrong choices share words with the right one. Chance is 25 % on the choice tasks and 0 on the others.
"""

SCORES = """
## Full-precision scores

{count} items per task, {draws} likelihood draws, 16 tokens in 16 steps; accuracy in per cent, standard
error of one score about {error:.1f}. Corpus and items are the same for all training seeds; seed {shipped} is
shipped. The recipe (shares of the families, number of people, size of sums) was adjusted three times by
looking at runs of seed 0, so the other seeds are the fairer picture of what the recipe gives: which skill is
learned late, and so how well, differs from seed to seed.

| training seed | {names} | mean | CPU minutes |
|---|{rules}|---|---|
{rows}

Target window: 80 to 95 per task. {verdict}
"""

OUTLIERS = """
## Injected outliers

The shipped weights are the trained ones after four function-preserving changes of basis (`outliers.py`):
residual rotation onto its strongest directions, norm gains x{norm:.0f}, MLP units x{hidden:.0f}, and a
token-specific, non-diagonal stretch (x{value:.0f}) of the values of the mask token and the full stop. Largest
logit difference to the trained model: {fp32:.1e} in fp32, {fp16:.1e} after the cast to fp16, where logits
reach {logits:.0f}.

Largest over median channel maximum of layer inputs (largest over blocks):

| layer input | as trained | as shipped |
|---|---|---|
{rows}

What this does not show: diagonal outliers are undone exactly by SmoothQuant-like scales and by folding
gains, so the order of methods on this model says nothing about their order on real ones.
"""

DAMAGE = """
## What quantization does to it

Shipped model, {count} items per task, {draws} likelihood draws, one scale per output channel
(asymmetric grid), {rows_used} calibration rows, one calibration seed, statistics of the full-precision model.
A quick look: a sweep gives intervals.

| recipe | calibration | {names} | mean |
|---|---|{rules}|---|
{rows}
"""

Scores = Mapping[str, float]
LOW, HIGH = 0.80, 0.95  # low enough to fall visibly, high enough to have something to lose


def percent(scores: Scores) -> str:
    """One table row's cells: every task, then the mean."""
    values = [100 * scores[task] for task in TASKS]
    return " | ".join(f"{value:.1f}" for value in [*values, sum(values) / len(values)])


def misses(scores: Scores) -> str:
    """The tasks outside the window, with their scores; empty when there are none."""
    return ", ".join(
        f"{task} {100 * scores[task]:.1f}" for task in TASKS if not LOW <= round(scores[task], 4) <= HIGH
    )


def verdict(seeds: Mapping[str, Scores], cast: Scores) -> str:
    """What misses the window: the shipped files, then every training seed that does."""
    missed = misses(cast)
    first = (
        f"The shipped model misses it: {missed}." if missed else "The shipped model is inside it on every task."
    )
    others = [f"Seed {seed} misses it: {misses(scores)}." for seed, scores in seeds.items() if misses(scores)]
    return " ".join([first, *others])


def scores_section(seeds: Mapping[str, Scores], shipped: str, cast: Scores, count: int, draws: int) -> str:
    """`seeds`: training seed -> scores and cpu_minutes; `cast`: the shipped files' own scores."""
    rows = [f"| {seed} | {percent(s)} | {s['cpu_minutes']:.1f} |" for seed, s in seeds.items()]
    rows.append(f"| {shipped}, as shipped | {percent(cast)} | |")
    return SCORES.format(
        count=count,
        draws=draws,
        error=100 * (0.1 * 0.9 / count) ** 0.5,
        shipped=shipped,
        names=" | ".join(TASKS),
        rules="|".join(["---"] * len(TASKS)),
        rows="\n".join(rows),
        verdict=verdict(seeds, cast),
    )


def damage_section(cells: Mapping[tuple[str, str], Scores], count: int, draws: int, rows_used: int) -> str:
    """`cells`: (recipe, calibration) -> scores."""
    rows = [f"| {recipe} | {calibration} | {percent(s)} |" for (recipe, calibration), s in cells.items()]
    return DAMAGE.format(
        count=count,
        draws=draws,
        rows_used=rows_used,
        names=" | ".join(TASKS),
        rules="|".join(["---"] * len(TASKS)),
        rows="\n".join(rows),
    )


def outliers_section(before: Scores, after: Scores, differences: Mapping[str, float]) -> str:
    """`before` and `after`: layer -> unevenness; `differences`: fp32, fp16 and logits."""
    rows = "\n".join(f"| {name} | {before[name]:.1f} | {after[name]:.1f} |" for name in before)
    return OUTLIERS.format(rows=rows, norm=NORM_GAIN, hidden=HIDDEN_GAIN, value=VALUE_GAIN, **differences)
