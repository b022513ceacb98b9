"""Worded arithmetic: two additions or subtractions between 0 and 20, answered by working.

The canonical problem is the chain of numbers and signs ("12 + 5 - 3"), whatever the names and things
counted, so a chain that is evaluated is never trained in any wording. One-step sums ("12 + 5 = 17") are all
trained: they are the table that chains are made of.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from models.bundled.example import Example, held_out
from models.bundled.vocabulary import FIRST, GAINS, ITEMS, LOSSES

LARGEST, CHANGE = 20, 9  # of a running total, of one step
Chain = tuple[int, tuple[int, ...]]  # start, signed changes


def draw(rng: random.Random, steps: int) -> Chain:
    """A random chain whose running totals all stay between 0 and 20."""
    while True:
        start = rng.randint(1, 20)
        changes = tuple(rng.choice((-1, 1)) * rng.randint(1, CHANGE) for _ in range(steps))
        if all(0 <= total <= LARGEST for total in totals((start, changes))):
            return start, changes


def totals(chain: Chain) -> list[int]:
    """Running totals, the start included."""
    out = [chain[0]]
    for change in chain[1]:
        out.append(out[-1] + change)
    return out


def canonical(chain: Chain) -> str:
    """Such as '12 + 5 - 3'."""
    return " ".join([str(chain[0]), *(f"{'+' if c > 0 else '-'} {abs(c)}" for c in chain[1])])


def working(chain: Chain) -> str:
    """Such as '12 + 5 = 17 ; 17 - 3 = 14 ; so 14'."""
    running = totals(chain)
    steps = [f"{canonical((t, (c,)))} = {t + c}" for t, c in zip(running, chain[1], strict=False)]
    return " ; ".join([*steps, f"so {running[-1]}"])


def worded(rng: random.Random, chain: Chain) -> str:
    """The chain as a story."""
    name, thing = rng.choice(FIRST), rng.choice(ITEMS)
    parts = [f"{name} has {chain[0]} {thing} ."]
    for change in chain[1]:
        parts.append(f"{name} {rng.choice(GAINS if change > 0 else LOSSES)} {abs(change)} {thing} .")
    return " ".join([*parts, f"how many {thing} ?"])


def example(rng: random.Random) -> Example:
    """A training story of two steps (one in a quarter of the cases)."""
    while True:
        chain = draw(rng, 1 if rng.random() < 0.25 else 2)
        if len(chain[1]) == 1 or not held_out(canonical(chain)):
            return Example(worded(rng, chain), working(chain) + " .", canonical(chain))


def drill(rng: random.Random) -> Example:
    """One line of the table of sums."""
    start, changes = chain = draw(rng, 1) if rng.random() < 0.5 else _wide(rng)
    return Example(f"{canonical(chain)} =", f"{start + changes[0]} .", canonical(chain))


def _wide(rng: random.Random) -> Chain:
    """One step from any total, as met in the second step of a chain."""
    while True:
        start, change = rng.randint(0, LARGEST), rng.choice((-1, 1)) * rng.randint(1, CHANGE)
        if 0 <= start + change <= LARGEST:
            return start, (change,)


def items(rng: random.Random) -> Iterator[dict[str, object]]:
    """Endless held-out two-step stories, no chain twice."""
    seen: set[str] = set()
    while True:
        chain = draw(rng, 2)
        problem = canonical(chain)
        if held_out(problem) and problem not in seen:
            seen.add(problem)
            yield {"question": worded(rng, chain), "answer": str(totals(chain)[-1]), "problem": problem}
