"""The user's mistakes that are found here rather than in a room below."""

from __future__ import annotations


class UsageError(ValueError):
    """A request that cannot be carried out; one line. `hint` says what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
