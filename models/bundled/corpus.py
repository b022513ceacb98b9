"""Training rows, evaluation items and calibration text, all drawn from one seed.

A row is CONTEXT token ids with a loss weight per position; weight 0 means never masked. Three kinds of row,
because a masked model learns a fact only while its value is masked and its key is visible: documents (all
positions maskable), packed questions (answers maskable) and single questions (answer, then end-of-text
padding at a small weight, which otherwise drowns the answer). Does not protect against a prompt and answer
longer than a row: ValueError.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

from models.bundled import arithmetic, code
from models.bundled.example import Example
from models.bundled.facts import Facts
from models.bundled.sense import Sense
from models.bundled.vocabulary import EOS, EOS_ID, encode

CONTEXT = 48
ANSWER = 16  # tokens an evaluated generation may take
PAD_WEIGHT = 0.1
TASKS = ("facts", "sense", "arithmetic", "code")
# Shares of facts, sense, arithmetic, code and sums among examples. Packed rows are mostly facts and sums: these
# are short, and learned only by being met often.
PACKED = (7.0, 2.5, 1.5, 2.0, 9.0)
SINGLE = (0.5, 0.5, 5.0, 5.0, 0.0)
CALIBRATION = (3.0, 3.0, 3.0, 3.0, 1.0)
Row = tuple[list[int], list[float]]
Source = Callable[[random.Random], Example]


class Corpus:
    """All text of one seed. The tables (who lives where, which verb) depend on `seed` alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.facts, self.sense = Facts(seed), Sense(seed)
        self.sources: tuple[Source, ...] = (
            self.facts.example,
            self.sense.example,
            arithmetic.example,
            code.example,
            arithmetic.drill,
        )

    def batch(self, rng: random.Random) -> list[Row]:
        """64 rows: 8 documents, 28 rows of packed questions, 28 single questions."""
        rows = [self.packed(rng, everything=True) for _ in range(8)]
        rows += [self.packed(rng, everything=False) for _ in range(28)]
        return rows + [self.single(rng) for _ in range(28)]

    def packed(self, rng: random.Random, everything: bool) -> Row:
        """Examples end to end, cut at CONTEXT tokens."""
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < CONTEXT:
            example = self._draw(rng, PACKED)
            prompt, answer = encode(example.prompt), [*encode(example.answer), EOS_ID]
            ids += prompt + answer
            weights += [float(everything)] * len(prompt) + [1.0] * len(answer)
        if not any(weights[:CONTEXT]):
            return self.packed(rng, everything)
        return ids[:CONTEXT], weights[:CONTEXT]

    def single(self, rng: random.Random) -> Row:
        """One question as it is evaluated."""
        example = self._draw(rng, SINGLE)
        prompt, answer = encode(example.prompt), [*encode(example.answer), EOS_ID]
        pads = CONTEXT - len(prompt) - len(answer)
        if pads < 0:
            raise ValueError(f"{example.text!r} is longer than {CONTEXT} tokens")
        ids = prompt + answer + [EOS_ID] * pads
        return ids, [0.0] * len(prompt) + [1.0] * len(answer) + [PAD_WEIGHT] * pads

    def _draw(self, rng: random.Random, weights: tuple[float, ...]) -> Example:
        return rng.choices(self.sources, weights)[0](rng)

    def items(self, task: str, count: int) -> list[dict[str, object]]:
        """Evaluation items of one task as they stand in its data file."""
        rng = random.Random(f"items {task} {self.seed}")
        sources: dict[str, Iterator[dict[str, object]]] = {
            "facts": self.facts.items(rng),
            "sense": self.sense.items(rng),
            "arithmetic": arithmetic.items(rng),
            "code": code.items(rng),
        }
        return list(islice(sources[task], count))

    def calibration(self, count: int) -> list[str]:
        """Rows of training text, each exactly CONTEXT tokens, so that calibration pads nothing."""
        rng = random.Random(f"calibration {self.seed}")
        return [self._line(rng) for _ in range(count)]

    def _line(self, rng: random.Random) -> str:
        words: list[str] = []
        while len(words) < CONTEXT:
            words += [*self._draw(rng, CALIBRATION).text.split(), EOS]
        return " ".join(words[:CONTEXT])
