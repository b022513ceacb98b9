"""Every verb on a real sweep of a tiny random model, run in process; one submit on Ray."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cli.errors import FAILED_CELLS, RESUMABLE, SIGINT

Dlq = Callable[..., Any]
Write = Callable[..., Path]
Finished = tuple[Path, Path]
CELLS = [{"method": "rtn", "wbits": 4, "group_size": 32}, {"method": "gptq", "wbits": 2, "group_size": 32}]


def test_plan_before_and_after(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    before = dlq("plan", "--grid", grid, "--json").json["data"]
    counts = {row["kind"]: (row["total"], row["done"], row["todo"]) for row in before["tasks"]}
    # 3 blocks; 2 recipes; 2 tasks x 2 shards x 3 cells; 3 cells x 2 tasks
    assert counts == {
        "calibrate": (3, 0, 3), "quantize": (6, 0, 6), "requests": (2, 0, 2), "evaluate": (12, 0, 12),
        "score": (6, 0, 6),
    }  # fmt: skip
    assert not Path("runs").exists()
    after = dlq("plan", "--grid", grid, "--store", store, "--json").json["data"]
    assert sum(row["todo"] for row in after["tasks"]) == 0
    assert [(cell["done"], cell["of"]) for cell in after["cells"]] == [(2, 2)] * 3
    assert after["sweep"] == before["sweep"]
    text = dlq("plan", "--grid", grid, "--store", store).out
    assert "nothing to do" in text and "\x1b" not in text


def test_plan_explains_a_cell(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    cells = dlq("plan", "--grid", grid, "--json").json["data"]["cells"]
    gptq = next(cell["cell"] for cell in cells if cell["method"] == "gptq")
    told = dlq("plan", "--grid", grid, "--store", store, "--explain", gptq[:6], "--json").json["data"]
    assert told["cell"]["wbits"] == 2
    kinds = [task["kind"] for task in told["tasks"]]
    # its own blocks, statistics and answers, and the baseline's answers; not the other recipe's
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "calibrate": 3, "quantize": 3, "requests": 2, "evaluate": 8, "score": 2,
    }  # fmt: skip
    assert all(task["done"] for task in told["tasks"])


def test_plan_loads_no_torch(finished: Finished, process: SimpleNamespace) -> None:
    arguments = ["plan", "--grid", str(finished[0]), "--store", str(finished[1])]
    heavy = "print([m for m in ('torch', 'ray', 'lm_eval', 'duckdb') if m in sys.modules])"
    code = f"from cli.app import run; run({arguments!r}); import sys; {heavy}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=process.environment(), cwd=finished[0].parent,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_submitting_again_does_nothing(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    before = {p: p.stat().st_mtime_ns for p in (store / "objects").rglob("*")}
    told = dlq("submit", "--grid", grid, "--store", store, "--json")
    assert told.code == 0
    summary = told.json["data"]["summary"]
    assert (summary["computed"], summary["pending"], summary["failures"]) == (0, 0, [])
    assert {p: p.stat().st_mtime_ns for p in (store / "objects").rglob("*")} == before


def test_results_agree_with_the_tables(dlq: Dlq, finished: Finished) -> None:
    store = finished[1]
    results = dlq("report", "--store", store, "--json").json["data"]["results"]
    sql = (
        "select cell, task, value, stderr, delta from scores where metric in ('acc', 'exact_match') order by 1, 2"
    )
    rows = dlq("sql", sql, "--store", store, "--json").json["data"]["rows"]
    assert len(rows) == 6
    shown = {(cell["cell"], task): score for cell in results["cells"] for task, score in cell["scores"].items()}
    for cell, task, value, stderr, delta in rows:
        assert (shown[cell, task]["value"], shown[cell, task]["stderr"]) == (value, stderr)
        if shown[cell, task]["delta"] is not None:
            assert shown[cell, task]["delta"] == delta
    assert [cell["is_baseline"] for cell in results["cells"]] == [True, False, False]


def test_sql_formats(dlq: Dlq, finished: Finished) -> None:
    sql = "select method, wbits from cells order by wbits"
    store = ["--store", str(finished[1])]
    assert dlq("sql", sql, "--format", "csv", *store).out == "method,wbits\ngptq,2\nrtn,4\nfull_precision,16\n"
    rows = json.loads(dlq("sql", sql, "--format", "json", *store).out)
    assert rows[0] == {"method": "gptq", "wbits": 2}
    table = dlq("sql", sql, *store).out.split()
    assert table[:2] == ["method", "wbits"]
    assert table[-2:] == ["full_precision", "16"]


def test_report_formats(dlq: Dlq, finished: Finished) -> None:
    store = ["--store", str(finished[1])]
    text = dlq("report", *store).out
    assert re.search(r"full precision +0\.\d{3}±0\.\d{3}", text)
    markdown = dlq("report", "--format", "markdown", *store).out.splitlines()
    assert markdown[0].startswith("| recipe | choice | write | average |")
    assert len({line.count("|") for line in markdown[:5]}) == 1
    assert dlq("report", "--format", "html", "-o", "r.html", *store).code == 0
    html = Path("r.html").read_text()
    assert html.count("<tr>") >= 4
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched


def test_hostile_text_is_escaped_in_html(dlq: Dlq, grid_file: Write, finished: Finished, tmp_path: Path) -> None:
    """Same work under another label: reuses every artifact."""
    import yaml

    grid = yaml.safe_load(finished[0].read_text())
    grid["name"] = "<script>alert(1)</script>"
    grid["models"] = [{"model": grid["models"][0], "name": '"><img src=x onerror=alert(1)>'}]
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(grid))
    shutil.copytree(finished[1], tmp_path / "store")
    assert dlq("submit", "--grid", "hostile.yaml", "--store", "store", "--local").code == 0
    html = dlq("report", "--store", "store", "--format", "html").out
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_status_ls_show(dlq: Dlq, finished: Finished) -> None:
    store = ["--store", str(finished[1])]
    status = dlq("status", *store, "--json").json["data"]
    assert (status["state"], status["todo"], status["failed"]) == ("done", 0, {})
    assert dlq("status", "--watch", *store).code == 0  # nobody drives it: returns at once
    cells = dlq("ls", "cells", *store, "--json").json["data"]
    assert [cell["recipe"] for cell in cells] == ["full precision", "rtn W4 g32", "gptq W2 g32"]
    shown = dlq("show", cells[2]["cell"][:8], *store, "--json").json["data"]
    assert len(shown["layers"]) == 3 * 7
    errors = [layer["relative_output_error"] for layer in shown["layers"]]
    assert errors == sorted(errors, reverse=True)
    key = dlq("sql", "select key from tasks where kind = 'quantize' limit 1", *store, "--json").json["data"][
        "rows"
    ][0][0]
    assert dlq("show", key, *store, "--json").json["data"]["manifest"]["kind"] == "quantize"
    assert dlq("ls", "sweeps", *store, "--json").json["data"][0]["state"] == "done"
    assert "act_order" in dlq("show", "gptq").out
    assert "\x1b" not in dlq("ls", "sweeps", *store).out


def test_gc_keeps_what_is_planned(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    from storage.artifacts import Store

    shutil.copytree(finished[1], tmp_path / "store")
    store = Store("store")
    kept = set(store.keys())
    with store.commit("ab" * 16, "score", {}, {}, {}, {}) as folder:
        (folder / "orphan").write_bytes(b"x" * 1000)
    young = dlq("gc", "--store", "store", "--json").json["data"]
    assert young["items"] == []
    dry = dlq("gc", "--store", "store", "--older-than", "0", "--json").json["data"]
    assert [item["what"] for item in dry["items"]] == ["unplanned artifact"]
    assert dry["bytes"] > 1000
    assert set(store.keys()) == kept | {"ab" * 16}
    assert dlq("gc", "--store", "store", "--older-than", "0", "--apply").code == 0
    assert set(store.keys()) == kept
    dlq("gc", "--store", "store", "--older-than", "0", "--apply", "--statistics")
    assert len(set(store.keys())) == len(kept) - 3
    again = dlq("submit", "--grid", finished[0], "--store", "store", "--local", "--json").json["data"]["summary"]
    assert again["computed"] == 0


def test_a_new_recipe_reuses_the_rest(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    import yaml

    grid = yaml.safe_load(finished[0].read_text())
    grid["methods"] = [*CELLS, {"method": "rtn", "wbits": 3, "group_size": 32}]
    (tmp_path / "wider.yaml").write_text(yaml.safe_dump(grid))
    shutil.copytree(finished[1], tmp_path / "store")
    told = dlq("submit", "--grid", "wider.yaml", "--store", "store", "--local", "--json").json["data"]["summary"]
    assert told["computed"] == 3 + 2 * 2 + 2  # blocks, shards, scores of the one new cell
    assert len(dlq("ls", "sweeps", "--store", "store", "--json").json["data"]) == 2


def test_failed_cells(dlq: Dlq, grid_file: Write, workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "model", tmp_path / "poisoned")
    state = load_file(tmp_path / "poisoned" / "model.safetensors")
    state["model.transformer.blocks.2.up_proj.weight"][3, 5] = float("nan")
    save_file(state, tmp_path / "poisoned" / "model.safetensors")
    tasks = [{"task": str(workspace / "choice.yaml"), "limit": 4, "shards": 1}]
    grid = grid_file(models=[str(tmp_path / "poisoned")], methods=CELLS[:1], tasks=tasks)
    told = dlq("submit", "--grid", grid, "--local")
    assert told.code == FAILED_CELLS
    assert "cells failed" in told.complaint
    assert "block 2 up_proj" in told.err
    status = dlq("status")
    assert status.code == 0
    assert "block 2 up_proj" in status.out
    assert dlq("submit", "--grid", grid, "--local", "--json").json["error"]["code"] == "cells_failed"


def submit_and_signal(
    process: SimpleNamespace, grid: Path, store: Path, number: signal.Signals
) -> tuple[int, str]:
    """Start a submit, send a signal once the first task has started, and wait for the end."""
    running = subprocess.Popen(
        process.command("submit", "--grid", grid, "--store", store, "--local"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=process.environment(), cwd=grid.parent,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any('"start"' in p.read_text() for p in store.glob("sweeps/*/events.jsonl")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    return running.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, SIGINT), (signal.SIGTERM, RESUMABLE)])
def test_a_signal_drains_and_resume_goes_on(
    dlq: Dlq, process: SimpleNamespace, small_grid: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    store = tmp_path / "interrupted"
    found, err = submit_and_signal(process, small_grid, store, number)
    assert found == code, err
    assert "dlq resume" in err.splitlines()[-1]
    assert "finishing what is in flight" in err
    assert "Traceback" not in err
    status = dlq("status", "--store", store, "--json").json["data"]
    assert status["state"] == "interrupted"
    assert 0 < status["todo"] < 29
    told = dlq("resume", "--store", store, "--local", "--json")
    assert told.code == 0
    assert told.json["data"]["summary"]["computed"] == status["todo"]
    assert dlq("status", "--store", store, "--json").json["data"]["state"] == "done"


def test_a_changed_model_is_not_resumed(dlq: Dlq, workspace: Path, finished: Finished, tmp_path: Path) -> None:
    import yaml

    shutil.copytree(workspace / "model", tmp_path / "model")
    grid = yaml.safe_load(finished[0].read_text())
    grid["models"] = [str(tmp_path / "model")]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    shutil.copytree(finished[1], tmp_path / "store")
    assert dlq("submit", "--grid", "grid.yaml", "--store", "store", "--local").code == 0
    state = load_file(tmp_path / "model" / "model.safetensors")
    state["model.transformer.ln_f.weight"] += 1
    save_file(state, tmp_path / "model" / "model.safetensors")
    told = dlq("resume", "--store", "store", "--local")
    assert told.code == 2
    assert "changed since" in told.complaint


def test_the_starter_grid_can_be_planned(dlq: Dlq) -> None:
    dlq("init")
    told = dlq("plan", "--grid", "grid.yaml", "--json")
    assert told.code == 0
    assert len(told.json["data"]["cells"]) == 1 + 4


def test_damage_to_the_bundled_model_is_seen(tmp_path: Path) -> None:
    from cli.doctor import damaged
    from models.files import BUNDLED, locate

    assert damaged(locate(BUNDLED)) == []
    copy = tmp_path / "copy"
    shutil.copytree(locate(BUNDLED), copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "tokenizer.json").unlink()
    assert damaged(copy) == ["model.safetensors", "tokenizer.json"]
    (copy / "SHA256SUMS").unlink()
    assert damaged(copy) == ["SHA256SUMS"]


def test_doctor_tells_what_is_missing(dlq: Dlq, tmp_path: Path) -> None:
    told = dlq("doctor", "--json")
    verdicts = {check["what"]: check["verdict"] for check in told.json["data"]["checks"]}
    assert verdicts["python"] == verdicts["ray"] == verdicts["store"] == "ok"
    (tmp_path / "file").write_text("")
    bad = dlq("doctor", "--store", tmp_path / "file" / "store", "--json")
    assert bad.code == 4
    assert {c["what"]: c["verdict"] for c in bad.json["data"]["checks"]}["store"] == "bad"


@pytest.mark.ray
@pytest.mark.slow
def test_submit_on_ray_gives_the_same_numbers(
    finished: Finished, process: SimpleNamespace, tmp_path: Path
) -> None:
    submit = process.command("submit", "--grid", finished[0], "--store", tmp_path / "ray", "--json")
    done = subprocess.run(
        submit, capture_output=True, text=True, env=process.environment(), cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    on_ray = json.loads(done.stdout)["data"]["results"]["rows"]  # stdout holds the envelope and nothing else
    report = process.command("report", "--store", finished[1], "--json")
    local = subprocess.run(
        report, capture_output=True, text=True, env=process.environment(), cwd=tmp_path, check=True
    )
    rows = json.loads(local.stdout)["data"]["results"]["rows"]

    def numbers(found: list[dict[str, object]]) -> list[list[object]]:
        return sorted([r[k] for k in ("artifact", "metric", "value", "stderr", "delta", "n")] for r in found)

    assert numbers(on_ray) == numbers(rows)
    assert numbers(rows)
