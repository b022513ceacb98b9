"""Keys: any change of content changes them, no change of order does."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fingerprint import canonical, fingerprint

scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5) | st.floats(-1e9, 1e9)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner)
)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(k, shuffled(v, rng)) for k, v in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(v, rng) for v in value] if isinstance(value, list) else value


@given(plain, st.randoms(use_true_random=False))
def test_order_of_keys_does_not_matter(value: Any, rng: random.Random) -> None:
    assert canonical(value) == canonical(shuffled(value, rng))


@given(plain, plain)
def test_different_content_has_different_text(a: Any, b: Any) -> None:
    assert (canonical(a) == canonical(b)) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


def test_key_is_sha256_of_the_documented_text() -> None:
    text = '{"epoch":1,"kind":"quantize","schema":1,"spec":{"a":[1,2.5,null,true]}}'
    assert fingerprint("quantize", {"a": [1, 2.5, None, True]}) == hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {"a": {1, 2}}, object(), b"x"])
def test_values_without_a_canonical_form_are_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)
