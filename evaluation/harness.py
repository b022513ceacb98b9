"""The door to lm-eval: everything that imports it goes through here, lazily (it takes seconds).

Tasks are loaded fresh each time, because few-shot sampling is stateful: a task asked twice for its prompts would
draw other examples. Does not protect against a task's own Python code, which runs as lm-eval would run it.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

from evaluation.catalog import data_files, read_task
from evaluation.spec import TaskError, TaskSpec

FEWSHOT_SEED = 1234  # the default of lm-eval's simple_evaluate


def load_task(spec: TaskSpec) -> Any:
    """The lm-eval Task object of a spec, few-shot examples seeded, its data loaded.

    Raises TaskError when the definition changed since the spec was made, or lm-eval cannot load it.
    """
    file = read_task(spec.path or spec.name)
    if file.content != spec.content:
        raise TaskError(f"task {spec.name!r} changed since this sweep was planned ({file.path})")
    local = data_files(file.path, file.config)
    with quiet():
        # lm-eval's own reader, which resolves !function; no public one gives the merged mapping.
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(file.path)
        if local:
            config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": local}
        try:
            task = TaskManager(include_defaults=False).load(config)["tasks"][spec.name]
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise TaskError(f"task {spec.name!r} cannot be loaded: {_first_line(error)}") from error
    if spec.shots is not None:
        task.set_config(key="num_fewshot", value=spec.shots)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return task


def build_instances(task: Any, limit: int | None) -> list[Any]:
    """lm-eval's Instances of a freshly loaded task, in document order."""
    with quiet():
        task.build_all_requests(limit=limit, rank=0, world_size=1)
    return list(task.instances)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's progress bars and notes from the terminal; warnings still reach the log."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
