"""A large sweep asks first: what the answers on a real terminal do."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.errors import SIGINT, USAGE

# A test run in the background of a shell hands down an ignored SIGINT; a terminal does not.
ASK = """
import signal
import sys
import cli.submit
from cli.app import run
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.submit.MANY_TASKS = 1
sys.exit(run(sys.argv[1:]))
"""


def answer(process: SimpleNamespace, grid: Path, folder: Path, text: bytes) -> tuple[int, str]:
    """Submit on a terminal and type `text`; exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    arguments = ["submit", "--grid", str(grid), "--store", str(folder / "store"), "--local"]
    running = subprocess.Popen(
        [sys.executable, "-c", ASK, *arguments],
        stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL, env=process.environment(), cwd=folder,
        start_new_session=True, preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"[y/N]: " not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, text)
    for _ in range(30):
        if not select.select([ours], [], [], 2.0)[0]:
            os.write(ours, text)  # a Ctrl-C just before the process begins to read is lost on it: type it again
            continue
        try:
            shown += os.read(ours, 1000)
        except OSError:  # the other end was closed
            break
    os.close(ours)
    return running.wait(timeout=60), shown.decode()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [(b"n\n", USAGE, "nothing was started"), (b"\n", USAGE, "--yes"), (b"\x04", SIGINT, "interrupted"),
     (b"\x03", SIGINT, "interrupted")],
    ids=["no", "enter", "end of input", "ctrl-c"],
)  # fmt: skip
def test_a_refusal_is_no_defect(
    process: SimpleNamespace, small_grid: Path, tmp_path: Path, text: bytes, code: int, words: str
) -> None:
    found, shown = answer(process, small_grid, tmp_path, text)
    assert "Run 29 tasks?" in shown
    assert "Traceback" not in shown
    assert found == code, shown
    assert shown.splitlines()[-1].startswith("dlq: error: ") and words in shown.splitlines()[-1]
    assert not list((tmp_path / "store").glob("sweeps/*"))
