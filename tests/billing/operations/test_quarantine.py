"""A person resolves what did not add up: once, and never above what was debited."""

from datetime import datetime, timedelta

import psycopg
import pytest
import redis
from django.db import connection

from billing import locks, registers
from billing.credit import balances as credit
from billing.errors import CreditRefused
from billing.events import Estimated
from billing.fault_isolation import SomeFailed
from billing.holding.holds import SettledAttempt
from billing.models import Account, Tenant, UsageEvent
from billing.operations import quarantine, rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books, opened


@pytest.fixture
def doubtful(books: Books) -> UsageEvent:
    """An event without usage, debited at its hold of 1,000,000 nano-dollars."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    body = desks.encode(books.desk.event(request_id, usage=None, cost_pico=0))
    books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
    books.drain()
    return books.events()[0]


def resolve(books: Books, event: UsageEvent, *, tenant_pico: int) -> UsageEvent:
    now: datetime = desks.at(books.desk.now_ms)
    (resolved,) = quarantine.resolve_all(
        books.desk.client,
        event_ids=[event.pk],
        tenant_pico=tenant_pico,
        supplier_pico=5_000,
        resolved_by="ada",
        reason="the vendor's own bill",
        now=now,
    )
    return resolved


def test_a_resolved_event_is_posted_and_the_rest_is_given_back(
    books: Books, doubtful: UsageEvent
) -> None:
    # when
    resolved = resolve(books, doubtful, tenant_pico=300_000_000)
    # then
    assert (resolved.state, resolved.tenant_cost_pico) == ("posted", 300_000_000)
    assert resolved.transfer is not None
    assert resolved.transfer.memo == "ada: the vendor's own bill"
    assert books.account(Account.Kind.REVENUE) == -300_000_000
    assert books.balance().spent_pico == 300_000_000
    assert books.check() == {}


def test_an_event_is_resolved_once(books: Books, doubtful: UsageEvent) -> None:
    # given
    resolve(books, doubtful, tenant_pico=0)
    # when / then
    with pytest.raises(CreditRefused, match="not in quarantine"):
        resolve(books, doubtful, tenant_pico=1)
    assert books.account(Account.Kind.REVENUE) == 0


@pytest.mark.parametrize("tenant_pico", [-1, 1_000_000_001])
def test_a_tenant_never_pays_more_than_was_debited(
    books: Books, doubtful: UsageEvent, tenant_pico: int
) -> None:
    with pytest.raises(CreditRefused, match="between nothing"):
        resolve(books, doubtful, tenant_pico=tenant_pico)
    assert books.balance().spent_pico == 1_000_000_000


def test_while_somebody_drains_the_shard_it_is_left_to_be_rebuilt(
    books: Books, doubtful: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: the lock of the shard is held elsewhere
    monkeypatch.setattr(rebuild, "LOCK_WAIT_S", 0.05)
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [locks.SHARD_SPACE, books.shard])
        # when
        resolve(books, doubtful, tenant_pico=0)
    # then: cold, it grants nothing until the drain's task has rebuilt it
    assert books.shard in rebuild.cold_shards(books.desk.client)
    rebuild.rebuild_cold(books.desk.client, now=desks.at(books.desk.now_ms))
    assert books.balance().spent_pico == 0
    assert books.check() == {}


WEEK = timedelta(days=7)


def left_alone(books: Books, *, estimate_pico: int, charged_nano: int = 1_000_000) -> UsageEvent:
    """An event in quarantine with the data plane's estimate."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id, usage=None, cost_pico=0)
    made.problem = "negative input_tokens"
    made.detail.estimate = Estimated(
        input_tokens=100, output_tokens=10, basis="bytes", tenant_pico=estimate_pico
    )
    books.desk.settle_events(request_id, [SettledAttempt(desks.encode(made), charged_nano)])
    books.drain()
    return UsageEvent.objects.get(request_id=request_id)


def test_what_nobody_decides_in_time_is_settled_at_the_estimate(books: Books) -> None:
    # given
    event = left_alone(books, estimate_pico=280_000_000)
    drained = desks.at(books.desk.now_ms)
    client = books.desk.client
    # when
    early = quarantine.settle_overdue(client, after=WEEK, now=drained + timedelta(days=6))
    held = (books.balance().spent_pico, books.account(Account.Kind.REVENUE))
    settled = quarantine.settle_overdue(client, after=WEEK, now=drained + timedelta(days=7))
    again = quarantine.settle_overdue(client, after=WEEK, now=drained + timedelta(days=8))
    # then
    assert event.quarantine_reason == "negative input_tokens"
    assert (early, settled, again) == (0, 1, 0)
    assert held == (1_000_000_000, 0)
    event.refresh_from_db()
    assert (event.state, event.tenant_cost_pico) == ("posted", 280_000_000)
    assert event.transfer is not None
    assert event.transfer.memo == "the house: at the estimate: nobody decided within 7 days"
    assert books.balance().spent_pico == 280_000_000
    assert books.account(Account.Kind.REVENUE) == -280_000_000
    assert books.check() == {}


@pytest.mark.parametrize(
    ("estimate_pico", "charged_nano", "paid_pico"),
    [(5_000_000_000, 1_000_000, 1_000_000_000), (280_000_000, 0, 0)],
)
def test_an_estimate_never_takes_more_than_was_held(
    books: Books, estimate_pico: int, charged_nano: int, paid_pico: int
) -> None:
    # given
    left_alone(books, estimate_pico=estimate_pico, charged_nano=charged_nano)
    now = desks.at(books.desk.now_ms) + WEEK
    # when
    quarantine.settle_overdue(books.desk.client, after=WEEK, now=now)
    # then
    assert books.balance().spent_pico == paid_pico
    assert books.check() == {}


def test_an_event_that_nothing_is_known_of_is_given_back(
    books: Books, doubtful: UsageEvent
) -> None:
    # when
    now = desks.at(books.desk.now_ms) + WEEK
    settled = quarantine.settle_overdue(books.desk.client, after=WEEK, now=now)
    # then
    assert (settled, books.balance().spent_pico) == (1, 0)


def test_one_shard_that_is_busy_leaves_the_others_their_turn(
    books: Books, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: two tenants of different shards, and one row that somebody holds
    borealis = Tenant.objects.create(slug="borealis", name="Borealis")
    credit.grant(tenant=borealis, amount_pico=10**12, reason="start", created_by="test")
    other = opened(redis_client, borealis, books.price)
    mine = left_alone(books, estimate_pico=280_000_000)
    theirs = left_alone(other, estimate_pico=280_000_000)
    now = desks.at(books.desk.now_ms) + WEEK
    with (
        psycopg.connect(**connection.get_connection_params()) as holder,
        connection.cursor() as cursor,
    ):
        holder.execute("SELECT FROM billing_usageevent WHERE id = %s FOR UPDATE", [mine.pk])
        cursor.execute("SET lock_timeout = '50ms'")
        # when
        with pytest.raises(SomeFailed) as told:
            quarantine.settle_overdue(redis_client, after=WEEK, now=now)
        cursor.execute("RESET lock_timeout")
        holder.rollback()
    # then
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert [name for name, _ in told.value.failures] == [
        f"shard {registers.shard_of(mine.tenant_id)}"
    ]
    assert (mine.state, theirs.state) == ("quarantined", "posted")
    assert quarantine.settle_overdue(redis_client, after=WEEK, now=now) == 1
    mine.refresh_from_db()
    assert (mine.state, mine.tenant_cost_pico) == ("posted", 280_000_000)
