"""The garbage collector pauses while batches are drained, and they leave it nothing."""

import gc

import pytest

from billing.drain import garbage_collection
from tests.billing.open_books import Books


def test_it_is_away_for_the_run_and_back_whatever_happens() -> None:
    with pytest.raises(AssertionError), garbage_collection.paused():
        assert gc.isenabled()
    assert gc.isenabled()


def test_who_had_sent_it_away_before_finds_it_away() -> None:
    with garbage_collection.paused():
        with garbage_collection.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_drain_leaves_as_little_in_cycles_however_much_it_drains(books: Books) -> None:
    # given: what is made once has been made
    books.served()
    books.drain()
    left = []
    for events in (3, 60):
        for _ in range(events):
            books.served()
        gc.collect()
        # when
        with garbage_collection.paused():
            books.drain()
            left.append(gc.collect())
    # then: an event that kept itself alive would let the memory of a run grow
    few, many = left
    assert many - few < 10
