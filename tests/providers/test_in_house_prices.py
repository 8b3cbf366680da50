"""In-house prices follow what the engines really did, in steps, and never wander."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from billing import prices
from providers import in_house, workers
from providers.models import Worker
from tests import listed
from tests.providers.market import NOW, make_offer, publish, registration, worker_key

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(minutes=6)


def _worker() -> Worker:
    key, _ = worker_key()
    return workers.register(key=key, registration=registration(), now=NOW)


def _beat(worker: Worker, **totals: Any) -> None:
    """A busy spell at $0.0001 a second; calibrated at $0.25 in and $2.00 out."""
    done = {"uptime_s": 400.0, "input_tokens_uncached": 40_000, "input_seconds": 100.0}
    done |= {"output_tokens": 10_000, "output_seconds": 250.0}
    workers.heartbeat(key=worker.key, worker_id=worker.pk, load={}, totals=done | totals, now=NOW)


def _output_pico(worker: Worker, when: datetime = LATER + timedelta(hours=1)) -> int:
    return listed.price_at(worker.offer.sku, when)[0].output_pico


def test_a_price_follows_the_engine_time_of_its_tokens() -> None:
    # given
    worker = _worker()
    _beat(worker)

    # when
    published = in_house.publish_all(now=LATER)

    # then: 250 s × $0.0001 ÷ 10,000 tokens
    assert published == 1
    assert _output_pico(worker) == 2_500_000
    assert _output_pico(worker, NOW) == 2_000_000


def test_a_change_of_two_percent_is_not_published() -> None:
    # given
    worker = _worker()
    _beat(worker, output_seconds=203.0)

    # when
    published = in_house.publish_all(now=LATER)

    # then
    assert published == 0
    assert _output_pico(worker) == 2_000_000


def test_too_few_tokens_say_nothing() -> None:
    # given
    worker = _worker()
    _beat(worker, output_tokens=1_999)

    # when
    published = in_house.publish_all(now=LATER)

    # then
    assert published == 0


def test_no_price_is_published_twice_in_five_minutes() -> None:
    # given
    worker = _worker()
    _beat(worker)
    in_house.publish_all(now=LATER)
    more = {"input_tokens_uncached": 80_000, "input_seconds": 200.0, "uptime_s": 800.0}
    _beat(worker, output_tokens=20_000, output_seconds=550.0, **more)

    # when
    soon = in_house.publish_all(now=LATER + timedelta(minutes=4))
    then = in_house.publish_all(now=LATER + timedelta(minutes=6))

    # then: the second price looks at the difference only, 300 s for 10,000 tokens
    assert (soon, then) == (0, 1)
    assert _output_pico(worker) == 3_000_000


def test_the_cheapest_equivalent_outside_is_the_ceiling() -> None:
    # given
    worker = _worker()
    make_offer("acme/smollm", model="smollm2-135m-instruct")
    publish("acme/smollm", ("0.30", "0.10", "2.20"))
    _beat(worker)

    # when
    in_house.publish_all(now=LATER)

    # then
    assert _output_pico(worker) == 2_200_000


def _operator_price(worker: Worker) -> None:
    prices.publish(
        sku_code=worker.offer.sku,
        input_pico=7,
        cache_read_pico=7,
        cache_write_5m_pico=7,
        cache_write_1h_pico=7,
        output_pico=777,
        reasoning_pico=777,
        valid_from=NOW + timedelta(minutes=1),
        source=prices.OPERATOR,
        recorded_by="ada",
    )


def test_a_price_made_by_hand_stands_whatever_is_measured_or_calibrated() -> None:
    # given
    worker = _worker()
    _operator_price(worker)
    _beat(worker)

    # when
    published = in_house.publish_all(now=LATER)
    in_house.publish_calibrated(worker=worker, now=LATER)

    # then
    assert published == 0
    assert _output_pico(worker) == 777


def test_once_it_is_withdrawn_the_offer_is_priced_by_itself_again() -> None:
    # given
    worker = _worker()
    _operator_price(worker)
    prices.withdraw(sku_code=worker.offer.sku, actor="op", at=NOW + timedelta(minutes=2))
    assert listed.price_at(worker.offer.sku, LATER) == ()

    # when: without a price there is no traffic to measure
    published = in_house.publish_all(now=LATER)

    # then
    assert published == 1
    assert _output_pico(worker) == 2_000_000
