"""The house: who may import whom, what stays light, what is never called; read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "workers", "pipeline", "evaluation", "models", "quant", "storage", "dlq")

# Room -> rooms it may import. Arrows point downwards only.
ALLOWED = {
    "storage": set(),
    "quant": set(),
    "models": {"quant", "storage"},
    "evaluation": {"models"},
    "pipeline": {"storage", "quant", "models", "evaluation"},
    "workers": {"pipeline", "evaluation", "models", "quant", "storage"},
    "cli": set(ROOMS) - {"cli"},
    "dlq": set(ROOMS) - {"dlq", "cli"},
}

# Room -> libraries it must not import, at any depth of its own code.
FORBIDDEN = {
    "storage": {"torch", "ray", "transformers", "lm_eval"},
    "quant": {"ray", "transformers", "lm_eval", "datasets", "pyarrow", "duckdb", "safetensors"},
    "models": {"ray", "lm_eval", "pyarrow", "duckdb"},
    "evaluation": {"ray", "pyarrow", "duckdb"},
    "pipeline": {"torch", "ray", "transformers", "lm_eval", "safetensors"},
}

# Modules that a plan imports: they must not load these.
LIGHT = (
    "pipeline.plan",
    "pipeline.scheduler",
    "quant.registry",
    "quant.recipe",
    "models.files",
    "evaluation.spec",
)
HEAVY = ("torch", "ray", "transformers", "lm_eval", "datasets")


def sources() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield room, path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def test_there_is_something_to_check() -> None:
    assert len(list(sources())) > 50
    assert "pipeline" in {name.split(".")[0] for name in imports(ROOT / "workers" / "sweep.py")}


def test_rooms_import_downwards_only() -> None:
    wrong = []
    for room, path in sources():
        for name in imports(path):
            top = name.split(".")[0]
            if top in ROOMS and top != room and top not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if top in FORBIDDEN.get(room, ()):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_import_circles() -> None:
    """Between modules, at import time: imports inside functions do not count."""
    graph: dict[str, set[str]] = {}
    modules = {str(p.relative_to(ROOT).with_suffix("")).replace("/", "."): p for _, p in sources()}
    for name, path in modules.items():
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module and n.level == 0]
        names = {n.module for n in top} | {f"{n.module}.{a.name}" for n in top for a in n.names}
        graph[name] = {n for n in names if n in modules and n != name}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", LIGHT)
def test_planning_stays_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


UNSAFE = {"eval", "exec", "compile", "__import__"}
UNSAFE_ATTRIBUTES = {
    ("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("pickle", "dump"), ("dill", "loads"),
    ("os", "system"), ("marshal", "loads"),
}  # fmt: skip


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in UNSAFE:
            yield function.id
        if (
            isinstance(function, ast.Attribute)
            and (ast.unparse(function.value), function.attr) in UNSAFE_ATTRIBUTES
        ):
            yield ast.unparse(function)
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg in ("trust_remote_code", "shell") and not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield keyword.arg or ""


def test_no_code_or_pickles_are_loaded() -> None:
    wrong = [
        f"{p.relative_to(ROOT)}: {call}" for _, p in sources() for call in unsafe_calls(ast.parse(p.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_unsafe_call_check_can_fail() -> None:
    found = list(unsafe_calls(ast.parse("eval('1'); torch.load(p); f(shell=True); f(trust_remote_code=flag)")))
    assert found == ["eval", "torch.load", "shell", "trust_remote_code"]


DISTRIBUTION = {"yaml": "PyYAML", "lm_eval": "lm-eval", "huggingface_hub": "huggingface-hub"}


def test_what_is_imported_is_declared() -> None:
    """pyproject.toml names what the rooms import, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=~!\[ ]", line)[0] for line in project["dependencies"]}
    tops = {name.split(".")[0] for _, path in sources() for name in imports(path)}
    foreign = tops - set(sys.stdlib_module_names) - set(ROOMS)
    optional = {"fast_hadamard_transform"}
    assert {DISTRIBUTION.get(name, name) for name in foreign - optional} == declared
