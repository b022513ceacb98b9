"""Every column of every table, each in one place: name -> (type, what it means).

To add a column, add its line here (and give it a value where rows are made): old files read as null. Types never
change and columns are never renamed within a store version, so plain readers of the Parquet files stay right.
This module is pure data; storage.tables turns it into Arrow schemas.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

Columns = dict[str, tuple[str, str]]

VERSION: Columns = {"schema_version": ("int32", "version of this table's schema, filled in when written")}

ARTIFACT: Columns = {"artifact": ("string", "key of the artifact that holds the row, filled in when queried")}

RECIPE: Columns = {
    "method": ("string", "label of the method in the grid"),
    "transform": ("string", "what is done to inputs and weights before rounding"),
    "rounding": ("string", "how weights are rounded"),
    "allocation": ("string", "how bits are spread over weights"),
    "wbits": ("int32", "bits per weight code; 16 is full precision"),
    "abits": ("int32", "bits per activation; 16 is unquantized"),
    "group_size": ("int32", "weights per scale along the input; -1 is one per output channel"),
    "symmetric": ("bool", "weight grid without zero point"),
    "weight_grid": ("string", "asym_with_zero, asym_minmax, sym_full or sym_restricted"),
    "act_order": ("bool", "columns rounded in order of falling Gram diagonal"),
    "static_groups": ("bool", "scales of groups fixed before rounding"),
    "damping": ("double", "requested share of the mean Gram diagonal added to it"),
    "gptaq_alpha": ("double", "share of the input mismatch that GPTAQ passes on to later columns"),
    "mse_clip": ("bool", "weight range searched for least squared error"),
    "weight_clip_ratio": ("double", "share of the weight range that is kept"),
    "clamp_zero": ("bool", "zero points kept within the codes on asym_minmax"),
    "scale_search": ("bool", "AWQ's scale per input channel searched for least output error"),
    "clip_search": ("bool", "AWQ's clipping of weights searched for least output error"),
    "rotation_block": ("int32", "channels per rotated block"),
    "rotation_steps": ("int32", "greedy steps of a rotation search, at most"),
    "rotation_pivot": ("string", "what a greedy step takes as its axis: channel or row of the largest entry"),
    "rotation_seed": ("int64", "seed of the random part of a rotation"),
    "activation_symmetric": ("bool", "activation grid without zero point"),
    "activation_group_size": ("int32", "activations per scale; -1 is one per token"),
    "activation_clip_ratio": ("double", "share of the activation range that is kept"),
    "alpha": ("double", "how much of the activation range a diagonal scale moves into the weights"),
}

# What decides a layer's numbers. The label is no part of it: equal layers are one artifact under any label.
COMPONENTS: Columns = {name: column for name, column in RECIPE.items() if name != "method"}

CALIBRATED: Columns = {
    "calibration_samples": ("int32", "sequences that calibration fits on"),
    "calibration_length": ("int32", "tokens per calibration sequence"),
    "calibration_seed": ("int64", "seed of the choice and masking of calibration sequences"),
    "packing": ("string", "how texts are made into calibration sequences"),
    "prefix_ratio": ("double", "share of a calibration sequence that masking leaves visible at its start"),
    "masking": ("string", "how calibration tokens are masked"),
    "propagation": (
        "string",
        "parallel: blocks calibrate on full-precision inputs; sequential: on quantized ones",
    ),
}

CALIBRATION: Columns = {"calibration": ("string", "label of the calibration set"), **CALIBRATED}

MODEL: Columns = {
    "model": ("string", "label of the model in the grid"),
    "model_hash": ("string", "hash of the model's weights and specification"),
}

EVALUATION: Columns = {
    "estimator": ("string", "how log-likelihoods are estimated"),
    "samples": ("int32", "Monte-Carlo samples per log-likelihood"),
    "steps": ("int32", "denoising steps per generation"),
    "gen_length": ("int32", "generated tokens, at most"),
    "block_length": ("int32", "tokens per semi-autoregressive block"),
    "remasking": ("string", "which tokens a generation step keeps"),
    "temperature": ("double", "of sampling; 0 is greedy"),
    "cfg_scale": ("double", "classifier-free guidance; 0 is none"),
    "batch_size": ("int32", "documents per batch"),
    "tokens_per_forward": ("int32", "bound on rows x length of one forward pass"),
    "dtype": ("string", "number type of the forward passes"),
    "device": ("string", "where they ran"),
    "seed": ("int64", "seed of the evaluation"),
}

SIZES: Columns = {
    "code_bits": ("double", "bits per quantized weight, codes only"),
    "linear_bits": ("double", "bits per quantized weight with all metadata"),
}

RUNS: Columns = {
    **VERSION,
    "run": ("string", "one start of a driver"),
    "sweep": ("string", "the sweep it worked on"),
    "name": ("string", "name of the sweep in its grid"),
    "status": ("string", "how it ended; null while it runs or if it was killed"),
    "started_at": ("timestamp", "UTC"),
    "finished_at": ("timestamp", "UTC"),
    "host": ("string", "machine of the driver"),
    "pid": ("int64", "process of the driver"),
    "executor": ("string", "local or ray"),
    "dlq_version": ("string", ""),
    "python_version": ("string", ""),
    "torch_version": ("string", ""),
    "ray_version": ("string", ""),
    "lm_eval_version": ("string", ""),
    "platform": ("string", "operating system and processor"),
    "store": ("string", "root of the store when it started"),
    "tasks_total": ("int64", "tasks in the plan"),
    "tasks_done": ("int64", "tasks this run computed"),
    "tasks_reused": ("int64", "tasks that were committed before"),
    "tasks_failed": ("int64", "tasks given up"),
}

CELLS: Columns = {
    **VERSION,
    "sweep": ("string", "sweep that asks for the cell"),
    "cell": ("string", "identity of the cell: model, recipe, calibration, evaluation"),
    **MODEL,
    **RECIPE,
    **CALIBRATION,
    **EVALUATION,
    "is_baseline": ("bool", "the full-precision cell others are compared with"),
    "baseline": ("string", "cell this one is compared with"),
    "tasks": ("list<string>", "names of its evaluation tasks"),
}

TASKS: Columns = {
    **VERSION,
    "key": ("string", "key of the artifact"),
    "kind": ("string", "calibrate, quantize, requests, evaluate or score"),
    "spec": ("string", "what was asked for, as JSON"),
    "inputs": ("string", "role -> key of the artifacts it was made from, as JSON"),
    "facts": ("string", "what was measured, as JSON"),
    "seconds": ("double", "wall time"),
    "peak_memory_bytes": ("int64", "highest resident memory of the worker"),
    "bytes": ("int64", "size of the payloads"),
    "host": ("string", "machine that committed it"),
    "pid": ("int64", "process that committed it"),
    "created_at": ("timestamp", "UTC"),
}

LAYERS: Columns = {
    **VERSION,
    **ARTIFACT,
    "model_hash": MODEL["model_hash"],
    "block": ("int32", "index of the transformer block"),
    "layer": ("string", "name of the linear layer in its block"),
    "rows": ("int64", "output features"),
    "columns": ("int64", "input features"),
    **COMPONENTS,
    **CALIBRATED,
    "relative_output_error": ("double", "‖X(W−Ŵ)ᵀ‖/‖XWᵀ‖ over calibration tokens, weights alone"),
    "relative_output_error_held_out": ("double", "as the layer runs, on rows not used for fitting"),
    "rtn_output_error": ("double", "the first error for round-to-nearest on the same grid"),
    "relative_weight_error": ("double", "‖W−Ŵ‖/‖W‖ in transformed coordinates"),
    "damping_used": ("double", "damping after retries"),
    "dead_columns": ("int64", "inputs that were always zero"),
    "clipped_fraction": ("double", "share of weights outside the grid"),
    "finite": ("bool", "no infinity or NaN came out"),
    "worse_than_rtn": ("bool", "round-to-nearest would have been better"),
    **SIZES,
    "seconds": ("double", "wall time of this layer"),
}

ACTIVATIONS: Columns = {
    **VERSION,
    **ARTIFACT,
    "model_hash": MODEL["model_hash"],
    "block": ("int32", "index of the transformer block"),
    "site": ("string", "which input of the block's linear layers"),
    **CALIBRATED,
    "tokens": ("int64", "tokens seen"),
    "absmax": ("double", "largest magnitude"),
    "mean_abs": ("double", "mean magnitude"),
    "kurtosis": ("double", "fourth standardized moment; 3 is Gaussian"),
    "outlier_ratio": ("double", "largest channel magnitude over the median channel magnitude"),
}

SAMPLES: Columns = {
    **VERSION,
    **ARTIFACT,
    "model_hash": MODEL["model_hash"],
    "recipe": ("string", "short hash of the recipe; null for full precision"),
    "task": ("string", "evaluation task"),
    "doc_id": ("int64", "document in the task"),
    "choice": ("int32", "answer option"),
    "kind": ("string", "loglikelihood or generate"),
    "context_hash": ("string", "hash of the prompt"),
    "loglikelihood": ("double", "natural logarithm, summed over the target tokens"),
    "text": ("string", "generated answer"),
    "tokens": ("list<int32>", "generated token ids"),
    "target_length": ("int32", "tokens that were scored or asked for"),
    "seconds": ("double", "share of the batch's wall time"),
}

SCORES: Columns = {
    **VERSION,
    **ARTIFACT,
    "cell": ("string", "identity of the cell; joins with cells"),
    **MODEL,
    **RECIPE,
    **CALIBRATION,
    "task": ("string", "evaluation task"),
    "metric": ("string", "name of the metric, as lm-eval names it"),
    "higher_is_better": ("bool", "false for errors and perplexities"),
    "shots": ("int32", "examples in the prompt"),
    "document_limit": ("int32", "documents of the task that were asked for; null is all"),
    "value": ("double", "the score"),
    "stderr": ("double", "standard error of the score"),
    "n": ("int64", "documents"),
    "baseline": ("string", "cell that delta is paired against"),
    "delta": ("double", "value minus the baseline's, on the same documents"),
    "delta_low": ("double", "lower end of the 95 % interval of delta"),
    "delta_high": ("double", "upper end of the 95 % interval of delta"),
    "p_value": ("double", "of no difference from the baseline"),
    "flips": ("int64", "documents whose correctness differs from the baseline's"),
    **SIZES,
    "model_bytes": ("int64", "bytes of the whole model as stored"),
    "seconds": ("double", "wall time of evaluating the cell on the task"),
    **EVALUATION,
}

TABLES: dict[str, Columns] = {
    "runs": RUNS,
    "cells": CELLS,
    "tasks": TASKS,
    "layers": LAYERS,
    "activations": ACTIVATIONS,
    "samples": SAMPLES,
    "scores": SCORES,
}

REQUIRED: dict[str, frozenset[str]] = {
    "runs": frozenset({"run", "sweep", "started_at"}),
    "cells": frozenset({"sweep", "cell"}),
    "tasks": frozenset({"key", "kind"}),
    "layers": frozenset({"block", "layer"}),
    "activations": frozenset({"block", "site"}),
    "samples": frozenset({"task", "doc_id", "kind"}),
    "scores": frozenset({"cell", "task", "metric"}),
}
