"""Windows follow the tenant's calendar, through changes of the clocks and leap days."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import registers
from billing.errors import LimitRefused
from billing.holding import quota_registers
from billing.holding.holds import SettledAttempt, SpendScope
from billing.holding.scopes import limit_of
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import AuditEntry, Quota, ScopeKind, UsageEvent
from billing.registers import MS_PER_DAY, request_ms, span_of
from tests.billing import desk as desks
from tests.billing.open_books import Books

HOUR_MS = 3_600_000


def ms(*when: int, zone: str = "UTC") -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()) * 1000  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 1), 24)]
)
def test_a_day_is_as_long_as_the_clocks_make_it(day: tuple[int, int, int], hours: int) -> None:
    noon = ms(*day, 12, zone="Europe/Berlin")
    span = span_of("day", noon, "Europe/Berlin")
    assert span.begins_ms == ms(*day, zone="Europe/Berlin")
    assert span.ends_ms - span.begins_ms == hours * HOUR_MS


def test_a_midnight_that_clocks_skip_begins_its_day_at_the_skip() -> None:
    # In Cairo the clocks go from 24 April 2026, 00:00, straight to 01:00.
    span = span_of("day", ms(2026, 4, 24, 12, zone="Africa/Cairo"), "Africa/Cairo")
    before = span_of("day", ms(2026, 4, 23, 12, zone="Africa/Cairo"), "Africa/Cairo")
    assert before.ends_ms == span.begins_ms == ms(2026, 4, 23, 22)
    assert span.ends_ms - span.begins_ms == 23 * HOUR_MS


def test_both_halves_of_a_repeated_hour_are_one_day() -> None:
    # In Berlin 02:00 to 03:00 of 25 October 2026 comes twice.
    first, second = ms(2026, 10, 25, 0, 30), ms(2026, 10, 25, 1, 30)
    assert span_of("day", first, "Europe/Berlin") == span_of("day", second, "Europe/Berlin")


def test_a_leap_day_belongs_to_its_week_and_month() -> None:
    leap = ms(2028, 2, 29, 23, 59)
    day, week, month = (span_of(window, leap) for window in ("day", "week", "month"))
    assert (day.begins_ms, day.ends_ms) == (ms(2028, 2, 29), ms(2028, 3, 1))
    assert (week.begins_ms, week.ends_ms) == (ms(2028, 2, 28), ms(2028, 3, 6))
    assert (month.begins_ms, month.ends_ms) == (ms(2028, 2, 1), ms(2028, 3, 1))


def test_windows_of_two_zones_have_registers_of_their_own() -> None:
    now = ms(2026, 3, 10, 12)
    buckets = {span_of("day", now, zone).bucket for zone in ("UTC", "Asia/Kolkata", "Asia/Tokyo")}
    assert buckets == {"d202603100000", "d202603091830", "d202603091500"}
    assert span_of("lifetime", now, "Asia/Tokyo").bucket == "lifetime"


def test_ids_of_a_window_are_those_of_its_milliseconds() -> None:
    span = span_of("day", ms(2026, 3, 10, 12))
    first, after = registers.ids_between(span.begins_ms, span.ends_ms)
    assert first <= desks.request_id_at(span.begins_ms) < after
    assert first <= desks.request_id_at(span.ends_ms - 1) < after
    assert not first <= desks.request_id_at(span.ends_ms) < after
    assert not first <= desks.request_id_at(span.begins_ms - 1) < after


def cap(books: Books, window: str = "day") -> None:
    quotas.set_quota(
        tenant=books.tenant,
        cap=Cap(scope_kind="key", scope_id="5", window=window, limit_pico=10**12),
        actor="alice",
        now=desks.at(books.desk.now_ms),
        client=books.desk.client,
    )


def move(books: Books, zone: str) -> None:
    quotas.change_time_zone(
        tenant=books.tenant,
        zone=zone,
        actor="alice",
        now=desks.at(books.desk.now_ms),
        client=books.desk.client,
    )


def test_a_tenant_that_changes_its_zone_keeps_what_the_new_day_has_spent(books: Books) -> None:
    # given: one request yesterday in Tokyo's day, two today, one of them not drained
    cap(books)
    books.desk.spend = (SpendScope("key", "5", "day", 10**9),)
    books.desk.now_ms = ms(2026, 3, 10, 14)
    books.served()
    books.desk.now_ms = ms(2026, 3, 10, 16)
    books.served()
    books.drain()
    books.served()
    # when: in Tokyo it is 1 o'clock of the 11th
    move(books, "Asia/Tokyo")
    # then
    tokyo = SpendScope("key", "5", "day", 10**9, zone="Asia/Tokyo")
    assert books.desk.spend_register(tokyo) == (560_000, 0)
    books.desk.spend = (tokyo,)
    books.served()
    books.drain()
    assert books.desk.spend_register(tokyo) == (840_000, 0)
    assert books.check() == {}
    assert AuditEntry.objects.filter(action="tenant.time_zone").count() == 1


def test_a_request_keeps_the_day_it_was_admitted_in(books: Books) -> None:
    # given: held at 23:59:59 of Berlin's 28 March, settled in the next day
    move(books, "Europe/Berlin")
    books.desk.now_ms = ms(2026, 3, 28, 22, 59)
    cap(books)
    scope = SpendScope("key", "5", "day", 10**9, zone="Europe/Berlin")
    books.desk.spend = (scope,)
    request_id = books.desk.placed(hold_nano=1_000_000)
    evening_ms, books.desk.now_ms = books.desk.now_ms, books.desk.now_ms + 5 * 60_000
    # when
    books.settle(request_id)
    books.drain()
    # then
    assert books.desk.spend_register(scope, at_ms=evening_ms) == (280_000, 0)
    assert books.desk.spend_register(scope) == (0, 0)
    assert books.check() == {}


def test_caps_of_one_window_are_read_together_and_each_gets_its_own(books: Books) -> None:
    # given: requests around Tokyo's midnights of a day, a week and a month, one of them held
    move(books, "Asia/Tokyo")
    for hour in (10, 14, 15, 20):
        books.desk.now_ms = ms(2026, 2, 28, hour)
        books.served()
        books.desk.now_ms = ms(2026, 3, 8, hour)
        books.served()
        books.desk.now_ms = ms(2026, 3, 11, hour)
        books.served(team=4)
    doubtful = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(doubtful)
    made.tenant_cost_pico += 1
    books.desk.settle_events(doubtful, [SettledAttempt(desks.encode(made), 280_001)])
    books.drain()
    scopes = [("tenant", str(books.tenant.pk)), ("key", "5"), ("team", "4"), ("model", "swift-1")]
    scopes += [("provider", "acme"), ("provider", "nobody")]
    for window in ("day", "week", "month", "lifetime"):
        for kind, scope_id in scopes:
            Quota.objects.create(
                tenant=books.tenant, scope_kind=kind, scope_id=scope_id, window=window, limit_pico=1
            )
    now = desks.at(ms(2026, 3, 11, 21))
    # when
    with CaptureQueriesContext(connection) as asked:
        found = quota_registers.of_quotas(Quota.objects.select_related("tenant"), now)
    # then: the caps, who made which key, and each window's sums, however many caps there are
    assert len(asked) == 2 + len(("day", "week", "month", "lifetime"))
    assert {
        (quota.scope_kind, quota.scope_id, quota.window): found[quota.pk].spent_pico
        for quota in Quota.objects.all()
    } == {
        (kind, scope_id, window): _slowly(kind, scope_id, window, now)
        for kind, scope_id in scopes
        for window in ("day", "week", "month", "lifetime")
    }


def _slowly(kind: str, scope_id: str, window: str, now: datetime) -> int:
    """By every event there is."""
    span = span_of(window, int(now.timestamp() * 1000), "Asia/Tokyo")
    column = quota_registers.SCOPE_COLUMN[ScopeKind(kind)]
    return sum(
        1000 * event.charged_nano if event.state == "quarantined" else event.tenant_cost_pico
        for event in UsageEvent.objects.all()
        if str(getattr(event, column)) == scope_id
        and (not span.ends_ms or span.begins_ms <= request_ms(str(event.request_id)) < span.ends_ms)
    )


def test_a_zone_that_does_not_exist_changes_nothing(books: Books) -> None:
    with pytest.raises(LimitRefused):
        move(books, "Europe/Atlantis")
    assert books.tenant.time_zone == "UTC"


def test_a_raise_ends_at_its_minute() -> None:
    until_ms = datetime(2026, 3, 10, 13, tzinfo=UTC).timestamp() * 1000
    scope = SpendScope("key", "5", "day", 100, raised_nano=900, raised_until_ms=int(until_ms))
    assert limit_of(scope, int(until_ms) - 1) == 900
    assert limit_of(scope, int(until_ms)) == 100
    assert limit_of(scope, int(until_ms) + MS_PER_DAY) == 100
