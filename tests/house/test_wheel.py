"""A wheel holds everything that runs: built, installed into a bare environment, used away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

GRID = {
    "models": ["bundled"],
    "methods": [{"method": "rtn", "wbits": 4, "group_size": 64}],
    "calibration": {"masked": {"samples": 4, "held_out": 1, "length": 48, "packing": "rows"}},
    "tasks": [{"task": "facts", "limit": 4, "shards": 1}, {"task": "code", "limit": 4, "shards": 1}],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("dlq-*.whl"))


def test_data_files_are_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "evaluation/tasks", "models/bundled", "cli", "dlq"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.split()  # fmt: skip
    assert len(tracked) > 40
    assert set(tracked) <= names
    assert not [n for n in names if n.startswith(("tests/", "docs/", "runs/"))]


def test_it_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """dlq comes from the wheel alone; its dependencies are borrowed from here, to spare gigabytes."""
    env = tmp_path / "env"
    venv.create(env, with_pip=True)
    python = env / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = next(env.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))

    def dlq(*arguments: str) -> str:
        command = [env / "bin" / "dlq", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import models.bundled, evaluation.spec; print(models.bundled.__path__[0], evaluation.spec.__file__)"
    shown = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown.count(str(site)) == 2
    assert dlq("--version").startswith("dlq ")
    assert "gptq" in dlq("ls", "methods")
    dlq("submit", "--grid", "grid.yaml", "--local", "--yes")
    assert "rtn" in dlq("sql", "select distinct method from scores")
