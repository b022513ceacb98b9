"""Whatever is printed while this is in force is chatter and goes to stderr, so that stdout holds data only.

Looks stderr up at every write: live bars replace it by one that keeps lines above the bars. Does not catch what
C code writes to file descriptor 1.
"""

from __future__ import annotations

import contextlib
import io
import sys


class _ToStderr(io.TextIOBase):
    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def stdout_is_chatter() -> contextlib.redirect_stdout[_ToStderr]:
    """A context manager that sends prints to stderr."""
    return contextlib.redirect_stdout(_ToStderr())
