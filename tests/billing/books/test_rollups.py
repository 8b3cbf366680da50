"""The sums that PostgreSQL keeps: exact at every commit, whoever wrote, and cheap to read."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from billing.books import usage_sums
from billing.books.usage_sums import DaySpend, Totals
from billing.holding.holds import SettledAttempt
from billing.integrity import invariants
from billing.models import AccountSum, UsageDay, UsageEvent, UsageHour
from billing.operations import quarantine
from tests.billing import desk as desks
from tests.billing.open_books import Books

COST_PICO = 280_000_000
HOUR = timedelta(hours=1)


def around(books: Books) -> dict[str, object]:
    noon = desks.at(books.desk.now_ms)
    return {"since": noon - HOUR, "until": noon + HOUR}


def test_events_of_an_hour_are_one_row_per_offer_and_price(books: Books) -> None:
    # given
    for _ in range(3):
        books.served()
    # when
    books.drain()
    # then
    (hour,) = UsageHour.objects.all()
    (day,) = UsageDay.objects.all()
    assert (hour.attempts, hour.requests, hour.cost_pico) == (3, 3, 3 * COST_PICO)
    assert (day.attempts, day.requests, day.debited_pico) == (3, 3, 3 * COST_PICO)
    assert (day.input_tokens, day.output_tokens, day.api_key_id) == (300, 30, books.desk.key)
    assert usage_sums.totals(books.tenant.pk, **around(books)) == Totals(  # type: ignore[arg-type]
        requests=3,
        attempts=3,
        cost_pico=3 * COST_PICO,
        input_tokens=300,
        cache_read_tokens=0,
        output_tokens=30,
        cache_saved_pico=0,
    )
    assert books.check() == {}


def test_a_request_counts_once_however_many_attempts_it_took(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    failed = books.desk.event(
        request_id, usage=None, outcome="upstream_error", billable=False, supplier_pico=7_000
    )
    failed.supplier = "other"
    good = books.desk.event(request_id, attempt=1)
    books.desk.settle_events(
        request_id,
        [
            SettledAttempt(desks.encode(failed), 0),
            SettledAttempt(desks.encode(good), COST_PICO // 1000),
        ],
    )
    # when
    books.drain()
    # then
    spends = usage_sums.spend_by_day(books.tenant.pk, **around(books))  # type: ignore[arg-type]
    assert [(s.supplier, s.requests, s.attempts, s.cost_pico) for s in spends] == [
        ("acme", 0, 1, COST_PICO),
        ("other", 1, 1, 0),
    ]
    assert books.check() == {}


def test_an_event_that_is_read_again_adds_nothing(books: Books) -> None:
    # given
    request_id = books.served()
    books.drain()
    books.desk.client.delete(f"hold:{books.desk.tag}:{request_id}")
    # when
    books.settle(request_id)
    books.drain()
    # then
    assert UsageDay.objects.get().attempts == 1
    assert books.check() == {}


def test_a_quarantined_event_counts_as_debited_until_it_is_resolved(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    body = desks.encode(books.desk.event(request_id, cost_pico=COST_PICO + 1))
    books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
    books.drain()
    before = UsageDay.objects.get()
    # when
    quarantine.resolve_all(
        books.desk.client,
        event_ids=[UsageEvent.objects.get().pk],
        tenant_pico=COST_PICO,
        supplier_pico=5,
        resolved_by="alice",
        reason="the list price",
        now=desks.at(books.desk.now_ms),
    )
    # then
    assert (before.cost_pico, before.debited_pico, before.input_tokens) == (0, 10**9, 0)
    after = UsageDay.objects.get()
    assert (after.cost_pico, after.debited_pico, after.input_tokens) == (COST_PICO, COST_PICO, 100)
    assert (after.attempts, after.requests, after.supplier_cost_pico) == (1, 1, 5)
    # The hour's row of what nobody had paid for is left with nothing.
    assert sorted(UsageHour.objects.values_list("paid", "attempts", "cost_pico")) == [
        (False, 0, 0),
        (True, 1, COST_PICO),
    ]
    assert books.check() == {}


def test_a_span_is_widened_to_whole_hours(books: Books) -> None:
    # given
    books.served()
    books.drain()
    noon = desks.at(books.desk.now_ms)
    # when
    minute = timedelta(minutes=1)
    spends = usage_sums.spend_by_day(books.tenant.pk, since=noon + minute, until=noon + 2 * minute)
    # then
    assert spends == [DaySpend(noon.date(), "swift-1", "acme", COST_PICO, 1, 1, 100, 10)]
    assert usage_sums.spend_by_day(books.tenant.pk, since=noon - HOUR, until=noon) == []


def test_a_stranger_reads_nothing(books: Books) -> None:
    # given
    books.served()
    books.drain()
    stranger, noon = books.tenant.pk + 1, desks.at(books.desk.now_ms)
    # then
    assert usage_sums.totals(stranger, since=noon - HOUR, until=noon + HOUR).attempts == 0
    assert usage_sums.used_by_offer(stranger, since=noon - HOUR, until=noon + HOUR) == []
    key = books.desk.key
    assert usage_sums.last_used(stranger, [key], since=noon - HOUR) == {}
    assert usage_sums.last_used(books.tenant.pk, [key + 1], since=noon - HOUR) == {}
    assert usage_sums.last_used(books.tenant.pk, [key], since=noon - HOUR).keys() == {key}
    assert usage_sums.first_used_hour(stranger) is None


def test_a_balance_is_the_sum_of_its_entries(books: Books) -> None:
    # given
    for _ in range(4):
        books.served(supplier_pico=1_000)
        books.drain()
    # then
    sums = {s.account_id: s.entries for s in AccountSum.objects.filter(code="usage")}
    assert set(sums.values()) == {4}
    assert books.account("revenue") == -4 * COST_PICO
    assert sum(each.amount_pico for each in AccountSum.objects.all()) == 0


@pytest.mark.parametrize(
    ("table", "change", "broken"),
    [
        ("usageday", "cost_pico = cost_pico + 1", "events of a tenant equal what it was posted"),
        ("usageday", "supplier_cost_pico = 1", "events of a supplier equal what it was posted"),
        ("usagehour", "requests = 2", "sums by hour equal sums by day"),
        ("earnedday", "cost_pico = 1", "what is earned by day equals sums by day"),
        ("earnedday", "supplier_cost_pico = 1", "what is earned by day equals sums by day"),
        ("usageday", "debited_pico = 0", "usage sums equal their events"),
        ("accountsum", "amount_pico = 1", "all entries together are zero"),
        ("accountsum", "entries = entries + 1", "account sums equal their entries"),
    ],
)
def test_a_sum_that_is_off_by_one_is_found(
    books: Books, table: str, change: str, broken: str
) -> None:
    # given
    books.served()
    books.drain()
    assert books.check() == {}
    # when
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE billing_{table} SET {change}")  # noqa: S608 - from the lines above
    # then
    assert broken in books.check()


def test_a_check_goes_on_where_the_last_one_held(books: Books) -> None:
    # given
    books.served()
    books.drain()
    now = desks.at(books.desk.now_ms)
    assert invariants.check_all(books.desk.client, now=now)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_usageevent DISABLE TRIGGER USER")
        cursor.execute("UPDATE billing_usageevent SET transfer_id = NULL")
        cursor.execute("ALTER TABLE billing_usageevent ENABLE TRIGGER USER")
    # when: an hour later
    held = invariants.check_all(books.desk.client, now=now + HOUR)
    held_again = invariants.check_all(books.desk.client, now=now + 2 * HOUR)
    # then: the check within its overlap saw it; a check that fails does not move on
    assert (held, held_again) == (False, False)
    assert not invariants.audit(books.desk.client, now=now)


@pytest.mark.parametrize("change", [{"tenant_id": 10**9}, {"price_version_id": 10**9}])
def test_an_event_of_nobody_or_at_no_price_is_refused(books: Books, change: dict[str, int]) -> None:
    # given
    books.served()
    books.drain()
    event = UsageEvent.objects.get()
    event.pk, event.attempt = None, 9
    for name, value in change.items():
        setattr(event, name, value)
    # then
    with pytest.raises(IntegrityError), transaction.atomic():
        event.save(force_insert=True)
    assert UsageDay.objects.get().attempts == 1
