"""Agreement sense: pronoun by subject, verb by object, manner by adjective, with a second scene to be ignored.

Most of the rules are additive (each word of the answer depends on one word of the prompt), which a small model
learns fully. IRREGULAR_PERCENT of (subject, object) pairs take another verb than the object's own, and must be
remembered one by one, which keeps the task from saturating. Evaluated (object, adjective) pairs are never
described in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from models.bundled.example import Example, held_out
from models.bundled.vocabulary import ADJECTIVES, MANNERS, OBJECTS, SUBJECTS, VERBS

PRONOUN = {noun: pronoun for pronoun, nouns in SUBJECTS.items() for noun in nouns}
MANNER = {adjective: MANNERS[i // 2] for i, adjective in enumerate(ADJECTIVES)}
IRREGULAR_PERCENT = 18
Scene = tuple[str, str, str]  # subject, adjective, object


class Sense:
    """The verb table of one seed."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"sense {seed}")
        self.verb = {noun: VERBS[i // 4] for i, noun in enumerate(OBJECTS)}
        pairs = [(subject, noun) for subject in PRONOUN for noun in OBJECTS]
        self.irregular = {
            pair: rng.choice([verb for verb in VERBS if verb != self.verb[pair[1]]])
            for pair in rng.sample(pairs, len(pairs) * IRREGULAR_PERCENT // 100)
        }

    def example(self, rng: random.Random) -> Example:
        """A described scene and what followed."""
        scene, other = self._scene(rng, False), self._scene(rng, False)
        return Example(_prompt(rng, scene, other), " ".join(self._words(scene)) + " .", _pair(scene))

    def items(self, rng: random.Random) -> Iterator[dict[str, object]]:
        """Endless multiple-choice items: each wrong choice has one word wrong.

        The wrong word is taken from the scene to be ignored; the wrong verb of an irregular
        pair is the object's own one.
        """
        while True:
            scene, other = self._scene(rng, True), self._scene(rng, False)
            right, wrong = self._words(scene), self._words(other)
            if right[1] != self.verb[scene[2]]:
                wrong[1] = self.verb[scene[2]]
            if any(right[i] == wrong[i] for i in (0, 1, 3)):
                continue
            answers = [right, *([*right[:i], wrong[i], *right[i + 1 :]] for i in (0, 1, 3))]
            rng.shuffle(answers)
            yield {
                "question": _prompt(rng, scene, other),
                "choices": [" ".join(words) for words in answers],
                "label": answers.index(right),
                "problem": _pair(scene),
            }

    def _words(self, scene: Scene) -> list[str]:
        subject, adjective, noun = scene
        verb = self.irregular.get((subject, noun), self.verb[noun])
        return [PRONOUN[subject], verb, "it", MANNER[adjective]]

    def _scene(self, rng: random.Random, evaluated: bool) -> Scene:
        while True:
            scene = rng.choice(SUBJECTS[rng.choice(list(SUBJECTS))]), rng.choice(ADJECTIVES), rng.choice(OBJECTS)
            if held_out(_pair(scene)) == evaluated:
                return scene


def _pair(scene: Scene) -> str:
    return f"{scene[1]} {scene[2]}"


def _prompt(rng: random.Random, scene: Scene, other: Scene) -> str:
    seen = f"the {scene[0]} saw a {scene[1]} {scene[2]}"
    aside = f"near the {other[0]} with a {other[1]} {other[2]}"
    return f"{seen} {aside} ." if rng.random() < 0.5 else f"{aside} {seen} ."
