"""Help is instant and loads nothing heavy; usage errors are one line; the library's face is lazy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.app import app
from cli.errors import KINDS, USAGE, explain

Dlq = Callable[..., Any]
ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "duckdb", "pyarrow", "lm_eval", "transformers", "datasets", "pydantic", "yaml", "jinja2")
VERBS = ("init", "plan", "submit", "resume", "status", "report", "sql", "show", "ls", "doctor", "gc")


def loaded(code: str) -> list[str]:
    """Which heavy libraries a program loads."""
    code += f"\nimport sys; sys.stderr.write('LOADED ' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.stderr.rpartition("LOADED ")[2].split()


def test_help_loads_nothing_heavy() -> None:
    assert loaded("from cli.app import run; assert run(['--help']) == 0") == []


def test_the_check_of_loaded_libraries_can_fail() -> None:
    assert loaded("import yaml") == ["yaml"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(dlq: Dlq, verb: str) -> None:
    told = dlq(verb, "--help")
    assert told.code == 0
    assert "--json" in told.out
    assert told.err == ""


@pytest.mark.parametrize(
    ("verb", "default"), [("submit", "start one"), ("status", "the latest"), ("sql", "the grid's, or runs")]
)
def test_help_names_defaults_that_are_worked_out(dlq: Dlq, verb: str, default: str) -> None:
    """In square brackets they would be markup, and vanish."""
    assert f"default: {default}" in " ".join(dlq(verb, "--help").out.replace("│", " ").split())


def test_all_verbs_are_tested() -> None:
    assert {entry.name for entry in app.registered_commands} == set(VERBS)


def test_help_is_quick(process: SimpleNamespace) -> None:
    """0.4 s on a free core; the bound leaves room for a busy one. Best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(process.command("--help"), capture_output=True, check=True, cwd=ROOT)
        times.append(time.perf_counter() - started)
    assert min(times) < 1.0


def test_import_dlq_loads_nothing() -> None:
    assert loaded("import dlq") == []


def test_every_name_of_the_face_exists() -> None:
    code = (
        "import dlq\nfor name in dlq.__all__: assert getattr(dlq, name) is not None, name\nprint(dlq.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_face_has_no_other_names() -> None:
    import dlq

    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = dlq.quantise


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submitt"], "No such command"),
        (["plan"], "--grid"),
        (["plan", "--grid"], "--grid"),
        (["sql", "select 1", "--format", "xml"], "xml"),
        (["ls", "cats"], "cats"),
        (["status", "--no-such-option"], "--no-such-option"),
        (["submit", "--grid", "g.yaml", "--local", "--address", "auto"], "exclude each other"),
    ],
)
def test_usage_errors(dlq: Dlq, arguments: list[str], words: str) -> None:
    told = dlq(*arguments)
    assert told.code == USAGE
    assert words in told.complaint
    assert told.out == ""
    envelope = dlq(arguments[0], "--json", *arguments[1:])
    assert envelope.code == USAGE
    assert envelope.json["ok"] is False
    assert words in envelope.json["error"]["message"]


def test_the_table_of_errors_names_real_classes() -> None:
    """It goes by name, so a renamed exception would silently become an internal error."""
    import importlib

    for name, (word, code, _) in KINDS.items():
        module, _, kind = name.rpartition(".")
        error = getattr(importlib.import_module(module), kind)("what happened")
        assert (explain(error).code, explain(error).exit) == (word, code)


def test_a_defect_is_told_with_its_traceback(dlq: Dlq, monkeypatch: pytest.MonkeyPatch) -> None:
    import storage.sweeps

    def broken(store: object) -> None:
        raise TypeError("a defect")

    dlq("init")
    (Path("runs")).mkdir()
    from storage.artifacts import Store

    Store("runs")
    monkeypatch.setattr(storage.sweeps, "sweeps", broken)
    told = dlq("ls", "sweeps", "--json")
    assert told.code == 1
    assert told.json["error"]["code"] == "internal"
    assert "Traceback" in told.err


def test_debug_shows_where_an_error_came_from(dlq: Dlq) -> None:
    assert "Traceback" not in dlq("plan", "--grid", "none.yaml").err
    assert "Traceback" in dlq("plan", "--grid", "none.yaml", "--debug").err


def test_a_closed_pipe_is_no_error(process: SimpleNamespace) -> None:
    """`dlq ls methods | true`: nobody reads, nothing is said."""
    running = subprocess.Popen(
        process.command("show", "gptq"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait(timeout=60) == 0


def test_json_is_one_line(dlq: Dlq) -> None:
    told = dlq("ls", "methods", "--json")
    assert told.out.count("\n") == 1
    envelope = json.loads(told.out)
    assert set(envelope) == {"schema", "ok", "data", "error"}
    assert envelope["schema"] == 1
    assert {row["method"] for row in envelope["data"]} >= {"rtn", "gptq"}
