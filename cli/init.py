"""`dlq init`: a grid to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.common import Answer, say, verb
from dlq.errors import UsageError

TEMPLATE = Path(__file__).parent / "templates" / "grid.yaml"


@verb
def command(path: Annotated[str, typer.Argument(help="File to write.")] = "grid.yaml") -> Answer:
    """Write a commented starter grid, which runs on a laptop in a minute or two."""
    text = TEMPLATE.read_text(encoding="utf-8")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists; nothing was written", "`dlq init OTHER.yaml` writes elsewhere") from None
    except FileNotFoundError:
        raise UsageError(f"there is no folder {Path(path).parent}") from None
    say(f"wrote {path}; next: dlq plan --grid {path}")
    return Answer({"path": path}, [path])
