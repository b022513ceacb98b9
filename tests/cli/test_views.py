"""Looking at a finished sweep: sql, report, status, ls, show."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Dlq = Callable[..., Any]
Write = Callable[..., Path]
Finished = tuple[Path, Path]


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
