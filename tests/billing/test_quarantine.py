"""A person resolves what did not add up: once, and never above what was debited."""

from datetime import datetime

import psycopg
import pytest
from django.db import connection

from billing import locks, quarantine, rebuild
from billing.errors import CreditRefused
from billing.holds import SettledAttempt
from billing.models import Account, UsageEvent
from tests.billing import desk as desks
from tests.billing.books import Books


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
