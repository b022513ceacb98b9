"""Ctrl-C and SIGTERM during a run: the first one drains, the second one stops at once.

Whatever is committed stays in both cases. Ray puts its own SIGTERM handler in place when it starts, so `install`
is called again after that. Does nothing outside the main thread, where Python allows no handlers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAINING = "dlq: finishing what is in flight, then stopping; once more stops at once"


class Stopper:
    """Callable that tells whether a run should stop; a context manager around the run."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` tells the user a line."""
        self._say = say
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.received is not None

    def __enter__(self) -> Stopper:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, self.received or number
        if again:
            raise KeyboardInterrupt
        try:
            self._say(DRAINING)
        except RuntimeError:  # the signal came in the middle of another print
            os.write(2, DRAINING.encode() + b"\n")
