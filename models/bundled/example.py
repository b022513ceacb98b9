"""What every task family makes, and the rule that keeps evaluated problems out of training.

The split is a function of the problem's canonical form alone, so it holds for any seed and any amount of data.
Does not protect against two canonical forms of the same problem: each family defines one form per problem.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_PERCENT = 15


@dataclass(frozen=True)
class Example:
    """One training example: `answer` is what is masked. `problem` is its canonical form, checked by the split."""

    prompt: str
    answer: str
    problem: str

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}"


def held_out(problem: str) -> bool:
    """True for the 15 % of canonical problems that are only ever evaluated."""
    digest = hashlib.sha256(problem.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT
