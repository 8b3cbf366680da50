"""When and why a price of our own machines moved, as boards and overviews say it."""

from datetime import timedelta

import pytest

from providers.boards import leaderboards, price_moves
from providers.boards.shapes import MoveFigures
from providers.machines import in_house, workers
from providers.models import Worker
from tests.providers.made_offers import NOW, make_offer, publish, registration, worker_key

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(minutes=6)
MODEL = "smollm2-135m-instruct"


def moved_worker() -> Worker:
    key, _ = worker_key()
    worker = workers.register(key=key, registration=registration(), now=NOW)
    done = {"uptime_s": 400.0, "input_tokens_uncached": 40_000, "input_seconds": 100.0}
    done |= {"output_tokens": 10_000, "output_seconds": 250.0}
    workers.heartbeat(key=key, worker_id=worker.pk, load={}, totals=done, now=NOW)
    in_house.publish_all(now=LATER)
    return worker


def test_a_move_says_when_how_far_and_by_what() -> None:
    # given
    worker = moved_worker()

    # when
    [(offer, move)] = price_moves.of_own([MODEL], since=NOW, now=LATER + timedelta(days=1))

    # then
    assert offer.pk == worker.offer_id
    assert (move.at, move.before_pico, move.now_pico) == (LATER, 2_000_000, 2_200_000)
    assert move.percent == 10.0
    assert move.why == "measured over 10,000 output tokens, at most 10 % an hour"


def test_an_older_move_another_model_and_a_first_price_are_none() -> None:
    # given
    moved_worker()
    make_offer("acme/other", model="other-1b")
    publish("acme/other", ("1", "1", "1"))

    # then
    assert price_moves.of_own([MODEL], since=LATER + timedelta(seconds=1), now=LATER) == []
    assert price_moves.of_own(["other-1b"], since=NOW, now=LATER) == []
    assert price_moves.latest([]) == {}


def test_the_board_says_it_of_own_offers_only() -> None:
    # given
    worker = moved_worker()
    make_offer("acme/smollm", model=MODEL)
    publish("acme/smollm", ("0.30", "0.10", "9.00"))

    # when
    leaderboards.refresh(now=LATER + timedelta(minutes=1))
    board = leaderboards.board(MODEL, "1h")

    # then
    assert board is not None
    moves = {row.sku: row.move for row in board.rows}
    assert moves["acme/smollm"] is None
    assert moves[worker.offer.sku] == MoveFigures(
        at=LATER.isoformat(),
        before_output_pico=2_000_000,
        output_pico=2_200_000,
        percent=10.0,
        why="measured over 10,000 output tokens, at most 10 % an hour",
    )
