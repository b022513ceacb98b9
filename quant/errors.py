"""What can go wrong in this room, and the small checks that say so in one line.

`RecipeError` is the user's mistake, found before any work. `PoisonedLayer` is a layer that cannot be
quantized; it fails its own cell and nothing else. Messages never hold a newline, so that they fit a table and
a log line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecipeError(ValueError):
    """A recipe that cannot run; `field` is the offending field name where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PoisonedLayer(ValueError):
    """This layer cannot be quantized: its weights or statistics are not finite, or there are none."""


class SolveFailed(PoisonedLayer):
    """The damped Gram matrix has no Cholesky factor, even in float64 with the strongest damping."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` when a known name is close, else the list of valid names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"valid: {', '.join(names)}"


def check_choice(field: str, value: object, choices: Iterable[object]) -> None:
    """Raise RecipeError unless `value` is one of `choices` (the closest is named for strings)."""
    allowed = list(choices)
    if value in allowed:
        return
    listed = ", ".join(str(choice) for choice in allowed)
    hint = f" ({nearest_name(value, map(str, allowed))})" if isinstance(value, str) else ""
    raise RecipeError(f"{field} must be one of {listed}, not {value!r}{hint}", field)


def check_interval(field: str, value: float, low: float, high: float) -> None:
    """Raise RecipeError unless low < value <= high (never true for NaN)."""
    if not low < value <= high:
        raise RecipeError(f"{field} must be above {low:g} and at most {high:g}, not {value!r}", field)
