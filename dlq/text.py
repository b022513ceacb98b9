"""Text of unknown origin (answers of models, data sets, labels, errors) made safe to print on a terminal.

Removes escape sequences, control characters and characters that reorder text. Does not protect against
look-alike letters; HTML is escaped by the template engine, JSON by `json`.
"""

from __future__ import annotations

import re
import unicodedata

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, clearing
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and their like
    r"|\x1b[ -/]*[0-~]?"  # two-character sequences
)
_SPACES = {"\n": " ", "\t": " ", "\r": " ", "\v": " ", "\f": " ", "\u2028": " ", "\u2029": " "}


def clean(value: object) -> str:
    """One line of printable text; escape sequences, control and direction characters are gone."""
    text = _SEQUENCE.sub("", str(value))
    return "".join(_SPACES.get(c, c) for c in text if c in _SPACES or _printable(c))


def clean_lines(value: object) -> str:
    """Like `clean`, line by line: line breaks stay."""
    return "\n".join(clean(line) for line in str(value).split("\n"))


def _printable(character: str) -> bool:
    """Neither control (Cc), format such as direction marks (Cf), lone surrogate (Cs) nor a separator of lines."""
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def shorten(value: object, width: int = 60) -> str:
    """The beginning of a clean line, with an ellipsis where something was cut off."""
    text = clean(value)
    return text if len(text) <= width else text[: width - 1] + "…"
