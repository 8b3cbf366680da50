"""Automatic purchases at a processor that is slow, out of order or cut off: one at a time, under
one key, asked for until its outcome is known."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import IntegrityError, connection, transaction

from billing.credit import balances as credit
from billing.models import CreditGrant, Recharge, Tenant, TopUp
from billing.payments import recharges, returns
from billing.payments.facts import Disputed, Refunded
from gateway.payments import processor as stripe_calls
from gateway.payments import recharging
from tests.fakes import processor as fakes
from tests.fakes.processor import Processor
from tests.patience import PATIENCE_S
from tests.people import Person

USD = 10**12
State = TopUp.State
START = datetime(2026, 11, 2, 8, tzinfo=UTC)
SELLER = {"legal_name": "House"}


@pytest.fixture(scope="module")
def localstripe() -> Iterator[Processor]:
    with fakes.running() as processor:
        yield processor


@pytest.fixture
def processor(
    localstripe: Processor, settings: Any, redis_client: redis.Redis, transactional_db: None
) -> Iterator[Processor]:
    settings.STRIPE_API_KEY = fakes.API_KEY
    settings.STRIPE_WEBHOOK_SECRET = fakes.WEBHOOK_SECRET
    settings.STRIPE_API_URL = localstripe.url
    localstripe.seen_keys.clear()
    yield localstripe
    localstripe.faults.clear()
    localstripe.is_listing = True


@pytest.fixture
def card(alice: Person, processor: Processor) -> Recharge:
    payer, saved = processor.save_card()
    return Recharge.objects.create(
        tenant=alice.tenant,
        is_on=True,
        below_cents=1_000,
        amount_cents=1_000,
        monthly_max_cents=3_000,
        payer_reference=payer,
        card_reference=saved,
    )


def run(minutes: float) -> datetime:
    now = START + timedelta(minutes=minutes)
    recharging.start_due(now)
    recharging.ask_due(now)
    return now


def states() -> list[str]:
    return list(TopUp.objects.order_by("pk").values_list("state", flat=True))


def spend_all(person: Person) -> None:
    if amount := credit.credit_pico(person.tenant):
        credit.grant(tenant=person.tenant, amount_pico=-amount, reason="spent", created_by="t")


@pytest.mark.parametrize("fault", ["500 after", "reset after", "slow after"])
def test_a_charge_whose_answer_was_lost_is_one_charge(
    fault: str, alice: Person, card: Recharge, processor: Processor, monkeypatch: Any
) -> None:
    # given: the card is charged, and nobody hears of it, nor can look it up, for a while
    monkeypatch.setattr(stripe_calls, "TIMEOUT_S", 0.3)
    processor.slow_s = 0.5
    processor.faults += [fault, "500", "reset"]
    processor.is_listing = False
    # when
    for minutes in (0, 1, 11, 22, 33):
        run(minutes)
    # then
    assert states() == [State.PAID]
    assert len(set(processor.seen_keys)) == 1
    assert processor.charged(card.payer_reference) == 1
    assert credit.credit_pico(alice.tenant) == 10 * USD


def test_a_charge_that_is_found_by_looking_is_not_sent_again(
    alice: Person, card: Recharge, processor: Processor
) -> None:
    # given: an answer of 500 stays the answer of its key
    processor.faults.append("500 after")
    # when
    run(0)
    # then
    assert states() == [State.PAID]
    assert len(processor.seen_keys) == 1


def test_an_outcome_that_is_not_known_is_one_open_purchase(
    card: Recharge, processor: Processor
) -> None:
    # given
    processor.faults += ["500"] * 50
    # when: for hours it answers nothing else
    for minutes in range(0, 300, 5):
        run(minutes)
    # then
    assert states() == [State.STARTED]
    assert len(set(processor.seen_keys)) == 1
    assert len(processor.seen_keys) <= 12
    with pytest.raises(IntegrityError, match="one_open_attempt"), transaction.atomic():
        TopUp.objects.create(
            tenant=card.tenant, net_cents=1, is_automatic=True, due_at=START, created_at=START,
            created_by="x",
        )  # fmt: skip
    # and it ends when the processor is there again, and has used up nothing of the month
    processor.faults.clear()
    run(400)
    assert states() == [State.PAID]
    assert processor.charged(card.payer_reference) == 1


def _charge_and_stall(now: datetime, stalled: Any) -> None:
    connection.close()
    original = stripe_calls._judge

    def stall(*arguments: Any, **more: Any) -> str:
        stalled.set()
        signal.pause()
        return original(*arguments, **more)

    stripe_calls._judge = stall
    recharging.ask_due(now)


def test_a_process_that_is_killed_between_sending_and_storing_has_bought_once(
    alice: Person, card: Recharge, processor: Processor
) -> None:
    # given
    recharging.start_due(START)
    connection.close()
    fork = multiprocessing.get_context("fork")
    stalled = fork.Event()
    child = fork.Process(target=_charge_and_stall, args=(START, stalled))
    child.start()
    assert stalled.wait(PATIENCE_S)
    assert child.pid is not None
    # when
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    for minutes in (0.5, 1, 12, 13):
        run(minutes)
    # then
    assert states() == [State.PAID]
    assert processor.charged(card.payer_reference) == 1
    assert credit.credit_pico(alice.tenant) == 10 * USD


def test_what_never_arrived_is_given_up_after_a_day_and_counts_as_a_failure(
    card: Recharge, processor: Processor
) -> None:
    # given: nothing that was sent has arrived
    processor.faults += ["reset"] * 1_000
    for minutes in range(0, 24 * 60, 30):
        run(minutes)
    # then: it was looked for, found nowhere, and another is tried
    first = TopUp.objects.order_by("pk")[0]
    assert (first.state, first.due_at) == (State.FAILED, None)
    assert len({*processor.seen_keys}) == TopUp.objects.count() <= 2
    card.refresh_from_db()
    assert card.failures == 1
    assert processor.charged(card.payer_reference) == 0


def test_a_processor_that_never_says_leaves_it_to_a_person(
    card: Recharge, processor: Processor
) -> None:
    # given
    processor.faults += ["500"] * 2_000
    processor.is_listing = False
    # when
    for days in (0, 1, 2, 29, 30, 31):
        run(days * 24 * 60)
    # then: nothing is sent after a day, and it is under review after thirty
    assert states()[0] == State.REVIEW
    assert len(set(processor.seen_keys)) == len(states())


def test_failures_count_against_the_tries_and_not_against_the_month(
    alice: Person, card: Recharge, processor: Processor
) -> None:
    # given: two declined, then good again
    other, declined = processor.save_card(fakes.DECLINED_LATER)
    good = (card.payer_reference, card.card_reference)
    Recharge.objects.update(payer_reference=other, card_reference=declined)
    run(0)
    run(11)
    card.refresh_from_db()
    assert (card.failures, card.is_on, states()) == (2, True, [State.FAILED] * 2)
    Recharge.objects.update(payer_reference=good[0], card_reference=good[1])
    # when
    for minutes in (22, 33, 44, 55):
        run(minutes)
        spend_all(alice)
    # then: the whole month's sum is bought
    assert states() == [State.FAILED] * 2 + [State.PAID] * 3
    card.refresh_from_db()
    assert (card.failures, card.failure) == (0, "")


def test_a_card_that_is_changed_meanwhile_is_not_charged_for_the_open_one(
    card: Recharge, processor: Processor
) -> None:
    # given
    processor.faults += ["500 after"]
    processor.is_listing = False
    run(0)
    payer, saved = processor.save_card()
    Recharge.objects.update(payer_reference=payer, card_reference=saved)
    # when
    run(1)
    # then
    assert processor.charged(card.payer_reference) == 1
    assert processor.charged(payer) == 0
    assert states() == [State.PAID]


def test_suspended_tenants_are_not_recharged(
    alice: Person, card: Recharge, processor: Processor
) -> None:
    # given
    Tenant.objects.update(status=Tenant.Status.SUSPENDED)
    run(0)
    assert states() == []
    # and one that was opened before is not sent any more
    Tenant.objects.update(status=Tenant.Status.ACTIVE)
    processor.faults += ["500"]
    run(1)
    Tenant.objects.update(status=Tenant.Status.SUSPENDED)
    sent = len(processor.seen_keys)
    for minutes in (2, 30, 70, 130):
        run(minutes)
    assert len(processor.seen_keys) == sent
    assert states() == [State.FAILED]
    assert not CreditGrant.objects.exists()


def test_a_fresh_refund_is_not_bought_again(card: Recharge, processor: Processor) -> None:
    # given
    run(0)
    topup = TopUp.objects.get()
    fact = Refunded(reference=topup.payment_reference, refunded_cents=1_000)
    returns.refunded(fact, seller=SELLER, now=START + timedelta(minutes=20))
    # when
    for minutes in (21, 60, 600, 24 * 60):
        run(minutes)
    # then
    assert states() == [State.PAID]
    run(20 + 24 * 60 + 1)
    assert states() == [State.PAID, State.PAID]


def test_a_card_whose_payer_disputes_is_left_alone(card: Recharge, processor: Processor) -> None:
    run(0)
    fact = Disputed(
        reference=TopUp.objects.get().payment_reference,
        dispute_id="dp_1",
        amount_cents=1_000,
        stage="opened",
    )
    returns.disputed(fact, seller=SELLER, now=START)
    for minutes in (30, 3 * 24 * 60):
        run(minutes)
    assert states() == [State.PAID]
    card.refresh_from_db()
    assert (card.is_on, card.failure) == (False, returns.ALSO_OFF)


@pytest.mark.parametrize(
    ("zone", "last_minute"),
    [
        ("Pacific/Kiritimati", datetime(2026, 11, 30, 9, 59, tzinfo=UTC)),
        ("UTC", datetime(2026, 11, 30, 23, 59, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2026, 12, 1, 7, 59, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 11, 30, 18, 14, tzinfo=UTC)),
    ],
)
def test_the_month_s_sum_is_that_of_the_tenant_s_calendar(
    zone: str, last_minute: datetime, alice: Person, card: Recharge, processor: Processor
) -> None:
    # given: all of the month's sum was bought on its first day
    Tenant.objects.update(time_zone=zone)
    began = last_minute - timedelta(days=29, hours=20)
    for minutes in (0, 11, 22):
        run((began - START) / timedelta(minutes=1) + minutes)
        spend_all(alice)
    assert states() == [State.PAID] * 3
    # when
    run((last_minute - START) / timedelta(minutes=1))
    # then: none in its last minute, one in the next month's first
    assert states() == [State.PAID] * 3
    run((last_minute - START) / timedelta(minutes=1) + 1)
    assert states() == [State.PAID] * 4


def test_a_purchase_that_is_paid_after_its_month_is_of_the_month_it_was_started_in(
    alice: Person, card: Recharge, processor: Processor
) -> None:
    # given: a timeout in November's last minutes, in the tenant's zone
    Tenant.objects.update(time_zone="America/Los_Angeles")
    late = (datetime(2026, 12, 1, 7, 58, tzinfo=UTC) - START) / timedelta(minutes=1)
    processor.faults += ["500", "reset"]
    processor.is_listing = False
    run(late)
    assert states() == [State.STARTED]
    # when: it is paid in December, and December buys for itself
    for minutes in (60, 80, 100, 120, 140):
        run(late + minutes)
        spend_all(alice)
    # then
    assert states() == [State.PAID] * 4
    assert len(set(processor.seen_keys)) == 4


def test_two_processes_open_one_purchase(card: Recharge, processor: Processor) -> None:
    assert recharges.start_due(now=START) == 1
    assert not recharges._start(card, START)
    first = recharges.claim_due(now=START)
    assert first is not None
    assert recharges.claim_due(now=START) is None
    assert states() == [State.STARTED]
