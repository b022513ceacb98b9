"""Task definitions on disk: lm-eval YAML files that ship with dlq, of the user's, or of lm-eval itself.

Files are found, read as data and hashed, without importing lm-eval: `!function` references are hashed as files
and run by nobody here. Does not protect against a definition that reads further files on its own.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

LOCAL_FORMATS = ("json", "csv", "parquet", "text", "arrow")


class TaskError(ValueError):
    """A task or setting that cannot be used; one line. `field` names the setting it is about, if any."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class TaskFile:
    """A definition as read: `config` with includes merged, `content` its hash with all local files it uses.

    named: found by its name alone, wherever dlq and lm-eval are installed.
    """

    name: str
    path: Path
    config: dict[str, Any]
    content: str
    named: bool


def bundled_tasks() -> dict[str, Path]:
    """Name -> definition of the tasks that ship with dlq. A file is named for its task; '_x.yaml' is shared."""
    folder = Path(str(files("evaluation") / "tasks"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("_")}


def read_task(name: str) -> TaskFile:
    """The definition behind a name or a path. Raises TaskError when there is none or it cannot be used."""
    bundled = bundled_tasks()
    given = None if name in bundled else _user_file(name)
    path = bundled.get(name) or given or _registry_file(name)
    if path is None:
        close = difflib.get_close_matches(name, bundled, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"bundled: {', '.join(sorted(bundled))}"
        raise TaskError(f"unknown task {name!r}: {hint} (or a .yaml file, or a task name of lm-eval)")
    config, parts = _read(path)
    if "group" in config or not isinstance(config.get("task"), str):
        raise TaskError(f"{name!r} is a group of tasks: name the tasks themselves")
    if "class" in config:
        raise TaskError(f"task {name!r} is written in Python, dlq takes tasks written in YAML")
    content = _content(path, config, parts, with_version=name not in bundled)
    return TaskFile(config["task"], path, config, content, named=given is None)


def data_files(path: Path, config: dict[str, Any]) -> dict[str, list[str]]:
    """Split -> data files of a task over local files, absolute; {} for data that come from the hub.

    Relative names count from the definition's folder. Raises TaskError for a missing file.
    """
    given = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("dataset_path") not in LOCAL_FORMATS or given is None:
        return {}
    splits = given if isinstance(given, dict) else {"train": given}
    result = {}
    for split, names in splits.items():
        paths = [path.parent / str(n) for n in (names if isinstance(names, list) else [names])]
        for missing in (p for p in paths if not p.is_file()):
            raise TaskError(f"task {config['task']!r}: data file {missing} does not exist")
        result[split] = [str(p.resolve()) for p in paths]
    return result


def _user_file(name: str) -> Path | None:
    if not name.endswith((".yaml", ".yml")):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise TaskError(f"task file {name} does not exist")
    return path.resolve()


@lru_cache(maxsize=256)
def _registry_file(name: str) -> Path | None:
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations or not re.fullmatch(r"[\w.+-]+", name):
        return None
    word = re.escape(name)
    wanted = re.compile(rf"""^["']?(?:task|group)["']?\s*:\s*["']?{word}["']?\s*(?:#.*)?$""".encode(), re.M)
    for path in sorted(Path(spec.submodule_search_locations[0], "tasks").rglob("*.yaml")):
        if wanted.search(path.read_bytes()):
            return path
    return None


def _read(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], list[bytes]]:
    """Config with includes merged (local keys win) and the bytes of every YAML file it came from."""
    if path in seen:
        raise TaskError(f"task file {path} includes itself")
    raw = _bytes(path)
    try:
        config = yaml.load(raw, Loader=_Loader)
    except yaml.YAMLError as error:
        raise TaskError(f"task file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise TaskError(f"task file {path} is not a mapping")
    includes = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    parts: list[bytes] = []
    for include in includes if isinstance(includes, list) else [includes]:
        below, more = _read((path.parent / include).resolve(), (*seen, path))
        merged |= {key: value for key, value in below.items() if key != "task_list"}
        parts += more
    return merged | config, [*parts, raw]


class _Loader(yaml.SafeLoader):
    """Safe YAML; `!function module.name` stays a reference."""


@dataclass(frozen=True)
class _Function:
    name: str


def _construct_function(loader: _Loader, node: yaml.ScalarNode) -> _Function:
    return _Function(str(loader.construct_scalar(node)))


_Loader.add_constructor("!function", _construct_function)


def _content(path: Path, config: dict[str, Any], parts: list[bytes], with_version: bool) -> str:
    digest = hashlib.sha256()
    local = data_files(path, config)
    modules = {path.parent / f"{f.name.rpartition('.')[0].replace('.', '/')}.py" for f in _functions(config)}
    code = [p for p in sorted(modules) if p.is_file()]
    for part in [*parts, *map(_bytes, code), *(_bytes(Path(p)) for names in local.values() for p in names)]:
        digest.update(hashlib.sha256(part).digest())
    if with_version:
        digest.update(version("lm-eval").encode())  # included and imported parts may be lm-eval's own
    return digest.hexdigest()


def _functions(value: object) -> Iterator[_Function]:
    if isinstance(value, _Function):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _functions(item)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TaskError(f"task file {path} cannot be read: {error.strerror}") from None
