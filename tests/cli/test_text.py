"""Nothing that a model, a data set or a file name says can reach into the terminal."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.render import Table, csv_text, markdown, show
from dlq.text import clean, clean_lines, shorten


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1bcreset", "reset"),
        ("\x1bP1$r\x1b\\device", "device"),
        ("a\rb\nc\td", "a b c d"),
        ("bell\x07 back\x08", "bell back"),
        ("abc\u202ecba", "abccba"),
        ("\u2066isolated\u2069", "isolated"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("Grüße, Ελλάδα, 日本", "Grüße, Ελλάδα, 日本"),
    ],
)
def test_clean(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


@given(st.text())
def test_clean_leaves_no_control_or_format_character(text: str) -> None:
    assert not [c for c in clean(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs"))))
def test_clean_keeps_plain_text(text: str) -> None:
    assert clean(text) == text


def test_lines_stay_where_they_are_wanted() -> None:
    assert clean_lines("a\x1b[1m\nb\x07") == "a\nb"


def test_shorten() -> None:
    assert shorten("a" * 60) == "a" * 60
    assert shorten("a" * 61) == "a" * 59 + "…"


HOSTILE = Table(("na\x1b[5mme", "n"), [["\x1b]0;x\x07evil | `code` <b>", 1.5], [None, -2]], right=frozenset("n"))


def test_tables_are_cleaned() -> None:
    out = io.StringIO()
    show([HOSTILE, "line\x1b[2J"], out)
    text = out.getvalue()
    assert "\x1b" not in text and "\x07" not in text
    assert "evil | `code` <b>" in text
    assert "–" in text
    assert text.endswith("line\n")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_markdown_escapes_markup() -> None:
    lines = markdown(HOSTILE).splitlines()
    assert lines[0] == "| name | n |"
    assert lines[1] == "| --- | ---: |"
    assert lines[2] == "| evil \\| \\`code\\` \\<b\\> | 1.5 |"


def test_csv_quotes() -> None:
    import csv

    text = csv_text(["a", "b"], [['say "hi"', "x,\x1b[1my"], [None, 3]])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ['say "hi"', "x,y"], ["", "3"]]


def test_wide_tables_are_not_cut_in_a_pipe() -> None:
    out = io.StringIO()
    show([Table(("long",), [["x" * 500]])], out)
    assert "x" * 500 in out.getvalue()
