"""In-house prices follow what the engines really did, in steps, and never wander."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.models import PriceProposal, PriceVersion
from billing.prices import proposals as price_proposals
from billing.prices import versions as prices
from providers.machines import in_house, workers
from providers.models import Worker
from tests import listed
from tests.providers.made_offers import NOW, make_offer, publish, registration, worker_key

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(minutes=6)
MINUTE = timedelta(minutes=1)


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


def _notes(worker: Worker) -> list[str]:
    rows = PriceVersion.objects.filter(sku__code=worker.offer.sku).order_by("during")
    return [row.note for row in rows]


def test_a_price_follows_the_engine_time_of_its_tokens() -> None:
    # given
    worker = _worker()
    _beat(worker, output_seconds=210.0)

    # when
    published = in_house.publish_all(now=LATER)

    # then: 210 s × $0.0001 ÷ 10,000 tokens
    assert published == 1
    assert _output_pico(worker) == 2_100_000
    assert _output_pico(worker, NOW) == 2_000_000
    assert _notes(worker) == ["calibrated at $0.36 an hour", "measured over 10,000 output tokens"]


def test_a_price_moves_by_a_tenth_an_hour_until_it_is_what_was_measured() -> None:
    # given: what would be 2,500,000
    worker = _worker()
    _beat(worker)

    # when: the job of every five minutes, for three hours
    seen = {}
    for minute in range(6, 186, 5):
        in_house.publish_all(now=NOW + timedelta(minutes=minute))
        seen[_output_pico(worker, NOW + timedelta(minutes=minute, seconds=1))] = minute

    # then: never more than a tenth above what it was an hour before
    assert list(seen) == [2_200_000, 2_420_000, 2_500_000]
    assert seen[2_200_000] - 6 >= 55
    assert _notes(worker)[1] == "measured over 10,000 output tokens, at most 10 % an hour"
    assert _notes(worker)[3] == "measured over 10,000 output tokens"


def test_a_machine_that_is_busy_with_other_things_for_a_while_moves_it_by_a_tenth_at_most() -> None:
    # given: measured at twice its price, then at half, every five minutes
    worker = _worker()
    asked = []
    done = {"uptime_s": 0.0, "input_tokens_uncached": 0, "input_seconds": 0.0}
    done |= {"output_tokens": 0, "output_seconds": 0.0}
    for turn in range(12):
        done["uptime_s"] += 400.0
        done["input_tokens_uncached"] += 40_000
        done["input_seconds"] += 100.0
        done["output_tokens"] += 10_000
        done["output_seconds"] += 400.0 if turn % 2 else 100.0
        _beat(worker, **done)

        # when
        moment = NOW + timedelta(minutes=5 * (turn + 1))
        in_house.publish_all(now=moment)
        asked.append(_output_pico(worker, moment + timedelta(seconds=1)))

    # then
    assert min(asked) >= 1_800_000
    assert max(asked) <= 2_200_000


def test_an_operator_approves_what_is_held_back() -> None:
    # given
    worker = _worker()
    _beat(worker)
    in_house.publish_all(now=LATER)
    [proposal] = PriceProposal.objects.filter(state=PriceProposal.State.PENDING)
    assert (proposal.sku, proposal.rates["output_pico"]) == (worker.offer.sku, 2_500_000)

    # when
    [decision] = price_proposals.approve([proposal.pk], actor="ada", now=LATER + MINUTE)

    # then: at once, and the next measurement of the same leaves it there
    assert decision.refusal == ""
    assert _output_pico(worker, LATER + 2 * MINUTE) == 2_500_000
    assert in_house.publish_all(now=LATER + 5 * MINUTE) == 0
    assert _output_pico(worker) == 2_500_000
    assert not PriceProposal.objects.filter(state=PriceProposal.State.PENDING).exists()


def test_steps_are_counted_from_what_a_person_decided() -> None:
    # given: approved, and then measured at what it was before
    worker = _worker()
    _beat(worker)
    in_house.publish_all(now=LATER)
    [proposal] = PriceProposal.objects.filter(state=PriceProposal.State.PENDING)
    price_proposals.approve([proposal.pk], actor="ada", now=LATER + MINUTE)
    more = {"input_tokens_uncached": 80_000, "input_seconds": 200.0, "uptime_s": 800.0}
    _beat(worker, output_tokens=20_000, output_seconds=450.0, **more)

    # when
    in_house.publish_all(now=LATER + 10 * MINUTE)

    # then
    assert _output_pico(worker) == 2_250_000


def test_a_new_calibration_moves_a_standing_price_in_steps_too() -> None:
    # given: the machine comes back with another rate an hour, twice as high
    worker = _worker()
    dearer = registration(usd_per_hour=registration().usd_per_hour * 2)

    # when
    workers.register(key=worker.key, registration=dearer, now=LATER)

    # then
    assert _output_pico(worker) == 2_200_000
    assert _notes(worker)[-1] == "calibrated at $0.72 an hour, at most 10 % an hour"
    in_house.publish_all(now=LATER + 5 * MINUTE)
    [proposal] = PriceProposal.objects.filter(state=PriceProposal.State.PENDING)
    assert proposal.rates["output_pico"] == 4_000_000


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
    _beat(worker, output_tokens=20_000, output_seconds=440.0, **more)

    # when
    soon = in_house.publish_all(now=LATER + timedelta(minutes=4))
    then = in_house.publish_all(now=LATER + timedelta(minutes=6))

    # then: the second price looks at the difference only, 190 s for 10,000 tokens
    assert (soon, then) == (0, 1)
    assert _output_pico(worker) == 1_900_000


def test_the_cheapest_equivalent_outside_is_the_ceiling() -> None:
    # given
    worker = _worker()
    make_offer("acme/smollm", model="smollm2-135m-instruct")
    publish("acme/smollm", ("0.30", "0.10", "2.10"))
    _beat(worker)

    # when
    in_house.publish_all(now=LATER)

    # then
    assert _output_pico(worker) == 2_100_000


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
