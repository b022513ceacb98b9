"""Recalled facts: four attributes of made-up people, each value two words. Memorised by design, never held out.

A wrong choice shares one word with the right one (or none), so half a memory is not enough.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from models.bundled.example import Example
from models.bundled.vocabulary import ATTRIBUTES, FIRST, LAST

PEOPLE = 192


class Facts:
    """The people of one seed: (name, attribute) -> value. Names are drawn without repetition."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"facts {seed}")
        names = rng.sample([f"{first} {last}" for first in FIRST for last in LAST], PEOPLE)
        self.values = {
            (name, attribute): (rng.choice(left), rng.choice(right))
            for name in names
            for attribute, (_, left, right) in ATTRIBUTES.items()
        }
        self.keys = list(self.values)

    def example(self, rng: random.Random) -> Example:
        """One fact as a sentence."""
        name, attribute = key = rng.choice(self.keys)
        prompt = f"{name} {ATTRIBUTES[attribute][0]}"
        return Example(prompt, " ".join(self.values[key]) + " .", prompt)

    def items(self, rng: random.Random) -> Iterator[dict[str, object]]:
        """Multiple-choice items, every fact once, in random order; endless use needs a new iterator."""
        for key in rng.sample(self.keys, len(self.keys)):
            name, attribute = key
            between, lefts, rights = ATTRIBUTES[attribute]
            left, right = self.values[key]
            other_left = rng.choice([w for w in lefts if w != left])
            other_right = rng.choice([w for w in rights if w != right])
            third = rng.choice([w for w in rights if w not in (right, other_right)])
            pairs = [(left, right), (other_left, right), (left, other_right), (other_left, third)]
            rng.shuffle(pairs)
            yield {
                "question": f"{name} {between}",
                "choices": [" ".join(pair) for pair in pairs],
                "label": pairs.index((left, right)),
                "problem": f"{name} {between}",
            }
