"""Which exit code an exception means, and how it is said: one line, with the next command where one helps.

Exceptions are told apart by name, so that none of the rooms has to be imported to look one up. Anything not
listed is a defect of dlq: it keeps its traceback, because it may be the only trace of a run of hours.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlq.text import clean

DONE, FAILED_CELLS, USAGE, RESUMABLE, ENVIRONMENT, SIGINT = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Problem:
    """An error as the user sees it; `code` is a stable word for programs, `exit` the exit code."""

    code: str
    message: str
    hint: str
    exit: int

    @property
    def known(self) -> bool:
        """False for a defect of dlq itself."""
        return self.code != "internal"


KINDS: dict[str, tuple[str, int, str]] = {
    "dlq.errors.UsageError": ("usage", USAGE, ""),
    "pipeline.yamlfile.GridError": ("grid", USAGE, ""),
    "quant.errors.RecipeError": ("recipe", USAGE, "`dlq ls methods` lists methods and their fields"),
    "models.spec.ModelError": ("model", USAGE, "`dlq ls models` lists what can be used"),
    "models.calibration.CalibrationError": ("calibration", USAGE, ""),
    "evaluation.catalog.TaskError": ("task", USAGE, "`dlq ls tasks` lists the bundled ones"),
    "storage.errors.QueryRefused": ("query_refused", USAGE, ""),
    "storage.errors.QueryError": ("query", USAGE, ""),
    "storage.errors.StorageFull": ("storage_full", ENVIRONMENT, "free some space, then `dlq resume`"),
    "storage.errors.StorageError": ("storage", ENVIRONMENT, ""),
    "workers.cluster.ClusterError": ("cluster", ENVIRONMENT, "`--local` runs without Ray"),
    "builtins.OSError": ("environment", ENVIRONMENT, ""),
}


def explain(error: BaseException) -> Problem:
    """What to tell the user about an exception."""
    message = clean(error).strip() or type(error).__name__
    for kind in type(error).__mro__:
        found = KINDS.get(f"{kind.__module__}.{kind.__qualname__}")
        if found:
            code, exit_code, hint = found
            return Problem(code, message, getattr(error, "hint", "") or hint, exit_code)
    if hasattr(error, "format_message"):  # what Typer says about a command line
        usage = " ".join(clean(error.format_message()).split())
        path = getattr(getattr(error, "ctx", None), "command_path", "dlq")
        return Problem("usage", usage, f"see `{path} --help`", USAGE)
    return Problem(
        "internal", f"{type(error).__name__}: {message}", "please report this with the traceback above", 1
    )
