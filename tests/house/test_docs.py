"""Every command that README and docs show is run, in order, on a small version of the quickstart grid."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> Iterator[str]:
    return (text for kind, text in BLOCK.findall(page.read_text()) if kind == language)


def commands(page: Path) -> list[str]:
    """The commands of a page's bash blocks, comments removed, continued lines joined."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    bare = (line.split("  #")[0].strip() for line in lines)
    return [line for line in bare if line and not line.startswith("#")]


def small(grid: Path) -> None:
    """The same grid with few documents and few methods."""
    data = yaml.safe_load(grid.read_text())
    data["methods"] = [
        {**m, "wbits": m["wbits"][-1:] if isinstance(m["wbits"], list) else m["wbits"]}
        for m in data["methods"][:2]
    ]
    data["tasks"] = [{"task": task["task"], "limit": 4, "shards": 1} for task in data["tasks"]]
    for entry in data["calibration"].values():
        entry.update(samples=4, held_out=1)
    grid.write_text(yaml.safe_dump(data, sort_keys=False))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    local = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    wanted = {
        c.split()[1]
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for c in commands(page)
        if c.startswith("make ")
    }
    assert {"quickstart", "test"} <= wanted
    assert not [target for target in wanted if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_yaml_examples_are_valid_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.plan import make_plan

    examples = [text for page in PAGES for text in blocks(page, "yaml") if "models:" in text]
    assert examples
    monkeypatch.chdir(tmp_path)
    for text in examples:
        (tmp_path / "grid.yaml").write_text(text)
        assert make_plan("grid.yaml").tasks


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(c.startswith("dlq ") for c in commands(p))], ids=lambda p: p.name
)
def test_every_dlq_command_shown_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "grids").mkdir()
    for grid in (ROOT / "grids").glob("*.yaml"):
        target = tmp_path / "grids" / grid.name
        target.write_text(grid.read_text())
        small(target)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands(page):
        if not command.startswith("dlq "):
            continue
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip() or "submit" not in command
