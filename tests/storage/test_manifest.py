"""A manifest shows every change to itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.artifacts import Store
from storage.errors import StorageError
from storage.manifest import Damaged, seal, unseal

KEY = "ab" + "0" * 30
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_it_says_what_was_committed(store: Store, put: Callable[..., None]) -> None:
    """Read with json and hashlib only, as somebody else would."""
    put(store, a_bin=b"payload")
    fields = json.loads((store.path(KEY) / "manifest.json").read_text())
    assert (fields["key"], fields["kind"], fields["spec"]) == (KEY, "calibrate", {"block": 3})
    assert fields["inputs"] == {"model": "m"} and fields["facts"] == {"seconds": 1.5}
    assert fields["payloads"] == {"a.bin": {"size": 7, "sha256": hashlib.sha256(b"payload").hexdigest()}}


def test_every_single_bit_shows(store: Store, put: Callable[..., None]) -> None:
    put(store)
    raw = (store.path(KEY) / "manifest.json").read_bytes()
    unseal(raw)
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            with pytest.raises(Damaged):
                unseal(bytes(changed))


def test_every_truncation_shows(store: Store, put: Callable[..., None]) -> None:
    put(store)
    raw = (store.path(KEY) / "manifest.json").read_bytes()
    for length in range(len(raw)):
        with pytest.raises(Damaged):
            unseal(raw[:length])


@given(st.dictionaries(st.text().filter(lambda name: name != "digest"), JSON, max_size=5))
def test_sealing_keeps_every_value(fields: dict[str, object]) -> None:
    assert unseal(seal(fields)) == fields


def test_only_json_can_be_sealed(store: Store) -> None:
    for value in (float("nan"), float("inf"), {1, 2}, b"bytes", object()):
        with (
            pytest.raises(StorageError, match="facts must be plain JSON"),
            store.commit(KEY, "score", {}, {}, {"value": value}, {}),
        ):
            pass
    assert not store.has(KEY)


def test_number_keys_become_text_before_they_are_sealed(store: Store) -> None:
    """10 sorts before 2 as text, after it as a number: the seal must not depend on which it was."""
    with store.commit(KEY, "score", {"bits": {10: "a", 2: "b"}}, {}, {}, {}):
        pass
    assert store.open(KEY).manifest.spec == {"bits": {"10": "a", "2": "b"}}
