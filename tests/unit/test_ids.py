"""Names of rows."""

from __future__ import annotations

import pytest

from ctxmem.errors import NotFound
from ctxmem.ids import item_of_artifact, item_of_event, new_id, parse_item


def test_ids_sort_in_the_order_they_were_made():
    """Ten thousand in one millisecond or two."""
    ids = [new_id("ev") for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_items_name_events_and_artifacts():
    """There and back."""
    event_id = new_id("ev")
    assert ("event", event_id) == parse_item(item_of_event(event_id))
    assert parse_item(item_of_artifact("ab" * 32)) == ("artifact", "ab" * 32)


@pytest.mark.parametrize("item_id", ["", "it_", "it_12", "ev_" + "0" * 32, "it_" + "g" * 32, "it_" + "../" * 10 + "ab"])
def test_other_strings_are_no_items(item_id):
    """Nothing reaches the store."""
    with pytest.raises(NotFound):
        parse_item(item_id)
