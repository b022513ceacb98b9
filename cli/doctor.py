"""`dlq doctor`: whether this machine can run a sweep; its output can be pasted into an issue.

Checks what is installed and reachable without starting Ray or loading torch. Does not protect against a GPU whose
driver is older than torch wants: the first task would say so.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cli.common import Answer, StoreOption, verb
from cli.errors import ENVIRONMENT, Problem
from cli.gc import human
from cli.render import Table
from dlq.places import DEFAULT

PACKAGES = ("torch", "ray", "lm_eval", "transformers", "safetensors", "pyarrow", "duckdb", "pydantic", "typer")
LITTLE_SPACE = 2 * 2**30  # bytes
LITTLE_MEMORY = 4 * 2**30
VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "RAY_ADDRESS", "DLQ_STORE")


@dataclass(frozen=True)
class Check:
    """One finding. 'note' is neither good nor bad, 'bad' means a sweep would not run."""

    what: str
    verdict: Literal["ok", "note", "bad"]
    detail: str


@verb
def command(store: StoreOption = None) -> Answer:
    """Check Python, packages, memory, GPU, the store's disk, the bundled model and Ray's settings."""
    checks = [check for group in _groups(store) for check in group()]
    bad = [check for check in checks if check.verdict == "bad"]
    problem = None
    if bad:
        words = "; ".join(f"{check.what}: {check.detail}" for check in bad)
        problem = Problem("environment", f"not ready: {words}", "", ENVIRONMENT)
    rows = [[check.verdict, check.what, check.detail] for check in checks]
    return Answer({"checks": checks}, [Table(("", "what", "detail"), rows)], problem)


def _groups(store: str | None) -> list[Callable[[], Iterator[Check]]]:
    return [_python, _machine, _gpu, lambda: _disk(Path(store or DEFAULT).expanduser()), _bundled, _settings]


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        try:
            yield Check(name, "ok" if find_spec(name) else "bad", version(name))
        except PackageNotFoundError:
            yield Check(name, "bad", "not installed")


def _machine() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    yield Check(
        "cpus", "ok", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    )
    verdict: Literal["ok", "note"] = "ok" if memory.available >= LITTLE_MEMORY else "note"
    yield Check("memory", verdict, f"{human(memory.available)} of {human(memory.total)} free")
    if Path("/dev/shm").is_dir():
        yield Check("shared memory", "ok", f"{human(shutil.disk_usage('/dev/shm').total)} for Ray's object store")


def _gpu() -> Iterator[Check]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Check("gpu", "note", "no nvidia-smi: the CPU is used")
        return
    asked = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("gpu", "note", f"nvidia-smi does not answer: {type(error).__name__}")
        return
    for line in told.strip().splitlines() or ["no GPU"]:
        yield Check("gpu", "ok", line)


def _disk(root: Path) -> Iterator[Check]:
    """Write and sync a file where the store is or would be."""
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    probe = there / f".dlq-doctor-{os.getpid()}"
    try:
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, b"dlq")
            os.fsync(handle)
        finally:
            os.close(handle)
            probe.unlink()
    except OSError as error:
        yield Check("store", "bad", f"{there} cannot be written: {error.strerror}")
        return
    free = shutil.disk_usage(there).free
    verdict: Literal["ok", "note"] = "ok" if free >= LITTLE_SPACE else "note"
    yield Check("store", verdict, f"{root} on a disk with {human(free)} free, write and fsync work")


def _bundled() -> Iterator[Check]:
    from models.files import BUNDLED, read_model
    from models.spec import ModelError

    try:
        model = read_model(BUNDLED)
    except ModelError as error:
        yield Check("bundled model", "bad", str(error))
        return
    wrong = damaged(Path(model.folder))
    if wrong:
        yield Check("bundled model", "bad", f"{', '.join(wrong)} differ from SHA256SUMS: install dlq again")
    else:
        yield Check(
            "bundled model", "ok", f"files match SHA256SUMS, tensors as its config says ({model.weights[:12]})"
        )


def damaged(folder: Path) -> list[str]:
    """Names of the files of a folder that its SHA256SUMS (as `sha256sum` writes it) does not confirm."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return ["SHA256SUMS"]
    wrong = []
    for line in sums.read_text().splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            wrong.append(name)
    return wrong


def _settings() -> Iterator[Check]:
    token = (Path.home() / ".ray" / "auth_token").exists() or bool(os.environ.get("RAY_AUTH_TOKEN"))
    mode = os.environ.get("RAY_AUTH_MODE", "unset")
    yield Check("ray auth", "note", f"RAY_AUTH_MODE {mode}, token {'there' if token else 'none'}")
    for name in VARIABLES:
        if os.environ.get(name):
            yield Check(name, "note", os.environ[name])
