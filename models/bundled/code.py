"""One-line code: what does a line of Python over a short list of digits print?

Programs are data: `run` below interprets the seven operations, nothing is ever executed. The canonical
problem is the program with its input, so an evaluated line was never trained, though its operations were,
on other lists.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from models.bundled.example import Example, held_out

Value = list[int] | int
Program = tuple[str, ...]

TO_LIST: dict[str, Callable[[list[int]], list[int]]] = {
    "[::-1]": lambda x: x[::-1],
    "[1:]": lambda x: x[1:],
    "[:-1]": lambda x: x[:-1],
    "sorted(": sorted,
}
TO_NUMBER: dict[str, Callable[[list[int]], int]] = {
    "[0]": lambda x: x[0],
    "[-1]": lambda x: x[-1],
    "max(": max,
    "min(": min,
    "len(": len,
}


def run(program: Program, x: list[int]) -> Value:
    """The value of the operations applied to x in order; only the last may give a number."""
    for name in program[:-1]:
        x = TO_LIST[name](x)
    last = program[-1]
    return TO_NUMBER[last](x) if last in TO_NUMBER else TO_LIST[last](x)


def source(program: Program, x: list[int]) -> str:
    """The line as words, such as 'code: x = [ 4 , 2 ] ; print( sorted( x ) [0] ) out:'."""
    line = "x"
    for name in program:
        line = f"{name} {line} )" if name.endswith("(") else f"{line} {name}"
    return f"code: x = {show(x)} ; print( {line} ) out:"


def show(value: Value) -> str:
    """As Python prints it, one word per token."""
    return f"[ {' , '.join(map(str, value))} ]" if isinstance(value, list) else str(value)


def draw(rng: random.Random) -> tuple[Program, list[int]]:
    """One or two operations on three digits."""
    last = rng.choice([*TO_LIST, *TO_NUMBER])
    program = (rng.choice(list(TO_LIST)), last) if rng.random() < 0.4 else (last,)
    return program, [rng.randint(0, 9) for _ in range(3)]


def example(rng: random.Random) -> Example:
    """A training line and what it prints."""
    while True:
        program, x = draw(rng)
        text = source(program, x)
        if not held_out(text):
            return Example(text, show(run(program, x)) + " .", text)


def items(rng: random.Random) -> Iterator[dict[str, object]]:
    """Endless held-out lines, none twice."""
    seen: set[str] = set()
    while True:
        program, x = draw(rng)
        text = source(program, x)
        if held_out(text) and text not in seen:
            seen.add(text)
            yield {"question": text, "answer": show(run(program, x)), "problem": text}
