"""Bodies are split and joined without touching what is not edited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from service.wire import splice

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(scalars | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)
styles = st.sampled_from([{"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}, {}])


@given(st.dictionaries(texts, values), styles)
def test_any_object_passes_as_it_came(content: dict[str, Any], style: dict[str, Any]) -> None:
    """Whatever the style it was written in; the fields are its members."""
    received = json.dumps(content, **style).encode()
    body = splice.split(received)
    assert body.content is received
    assert {name: json.loads(raw) for name, raw in body.fields.items()} == content
    assert all(received[start:end] == body.fields[name] for name, (start, end) in body.spans.items())


@given(st.dictionaries(texts, values, min_size=1), values, styles, st.data())
def test_an_edit_changes_one_value_and_no_other_byte(
    content: dict[str, Any], value: Any, style: dict[str, Any], data: st.DataObject
) -> None:
    """What stands before and after it stays."""
    received = json.dumps(content, **style).encode()
    name = data.draw(st.sampled_from(sorted(content)))
    body = splice.split(received)
    edited = body.edited({name: json.dumps(value).encode()})
    start, end = body.spans[name]
    assert edited.startswith(received[:start])
    assert edited.endswith(received[end:])
    assert json.loads(edited) == {**content, name: value}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "model"]), scalars | texts), min_size=1, max_size=6))
def test_a_key_that_stands_twice_is_collapsed_to_its_last(pairs: list[tuple[str, Any]]) -> None:
    """And a body without one is not touched."""
    received = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()
    body = splice.split(received)
    seen = json.loads(body.content, object_pairs_hook=list)
    assert dict(seen) == dict(pairs)
    assert len(dict(seen)) == len(seen)
    assert (body.content is received) == (len(seen) == len(pairs))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_but_never_breaks(noise: bytes) -> None:
    """No other exception gets out."""
    try:
        splice.split(noise)
    except InvalidInput as error:
        assert str(error)


@pytest.mark.parametrize(("depth", "legal"), [(127, True), (128, False), (300, False), (100_000, False)])
@pytest.mark.parametrize("pair", [b"[]", b'{"a":}'])
def test_depth_is_counted_by_brackets_outside_of_texts(pair: bytes, depth: int, legal: bool) -> None:
    """The body itself is one level of the 128."""
    inner = pair[:-1] * depth + b"1" + pair[-1:] * depth
    received = b'{"x":' + inner + b"}"
    if legal:
        assert splice.split(received).content is received
        return
    with pytest.raises(InvalidInput, match="nested"):
        splice.split(received)


def test_brackets_in_texts_have_no_depth() -> None:
    """Code is full of them."""
    received = json.dumps({"x": ["[" * 500 + '\\"{' * 500, "}" * 3]}).encode()
    assert splice.split(received).content is received


def test_a_session_is_read_from_the_metadata() -> None:
    """Only a text will do; everything else is the upstream's business."""
    for metadata, session in (({"session_id": "a"}, "a"), ({"session_id": 7}, None), ("a", None), (None, None)):
        assert splice.split(json.dumps({"metadata": metadata}).encode()).session() == session
    assert splice.split(b"{}").session() is None
