"""Ctrl-C and SIGTERM during a run: the first one drains, the second one stops at once.

Whatever is committed stays in both cases. Ray puts its own SIGTERM handler in place when it starts, so `install`
is called again after that. Does nothing outside the main thread, where Python allows no handlers.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAINING = b"\ndlq: finishing what is in flight, then stopping; once more stops at once\n"


class Stopper:
    """Callable that tells whether a run should stop; a context manager around the run."""

    def __init__(self) -> None:
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
        os.write(2, DRAINING)  # print is not safe here: the main program may be in the middle of one
