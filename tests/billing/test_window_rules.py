"""Windows of a budget, in any zone: they cover all time, and never overlap."""

from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import registers
from billing.holding import scopes
from billing.holding.scopes import SpendScope
from billing.money import REGISTER_NANO_MAX
from billing.registers import DAY, LIFETIME, MONTH, MS_PER_SLICE, SESSION, WEEK, Span, span_of

WINDOWS: Final = (DAY, WEEK, MONTH)
DAYS: Final = {DAY: (1, 1), WEEK: (7, 7), MONTH: (28, 31)}
# Clocks that change at midnight, by half an hour or never; an island that crossed the date line.
ODD_ZONES: Final = (
    "UTC",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Europe/Dublin",
)
FIRST_MS: Final = int(datetime(2009, 1, 1, tzinfo=UTC).timestamp()) * 1000
LAST_MS: Final = int(datetime(2037, 1, 1, tzinfo=UTC).timestamp()) * 1000

moments = st.integers(FIRST_MS, LAST_MS)
windows = st.sampled_from(WINDOWS)
zones = st.sampled_from(ODD_ZONES) | st.sampled_from(sorted(available_timezones()))


def local(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=ZoneInfo(zone))


@given(windows, moments, zones)
def test_a_moment_is_in_its_window(window: str, at_ms: int, zone: str) -> None:
    span = span_of(window, at_ms, zone)

    # A window changes at a whole slice of time, which no clock of these years cuts.
    assert span.begins_ms // MS_PER_SLICE <= at_ms // MS_PER_SLICE <= span.ends_ms // MS_PER_SLICE
    assert span.begins_ms <= at_ms < span.ends_ms


@given(windows, moments, zones)
def test_the_next_window_begins_where_this_one_ends(window: str, at_ms: int, zone: str) -> None:
    span = span_of(window, at_ms, zone)

    after = span_of(window, span.ends_ms, zone)
    before = span_of(window, span.begins_ms - 1, zone)

    assert after.begins_ms == span.ends_ms
    assert before.ends_ms == span.begins_ms
    assert len({before.bucket, span.bucket, after.bucket}) == 3


@given(windows, moments, zones, st.integers(0, 10**6))
def test_all_moments_of_a_window_share_one_register(
    window: str, at_ms: int, zone: str, place: int
) -> None:
    span = span_of(window, at_ms, zone)
    inside = span.begins_ms + (span.ends_ms - span.begins_ms - 1) * place // 10**6

    assert span_of(window, inside, zone) == span


@given(windows, moments, zones)
def test_a_window_is_as_many_days_as_the_calendar_says(window: str, at_ms: int, zone: str) -> None:
    span = span_of(window, at_ms, zone)
    first, after = local(span.begins_ms, zone).date(), local(span.ends_ms, zone).date()
    least, most = DAYS[window]

    # Where an island moved across the date line one of its days was left out.
    assert least - 1 <= (after - first).days <= most + 1
    assert window != WEEK or first.weekday() == 0
    assert window != MONTH or (first.day, after.day) == (1, 1)


@given(moments, zones)
def test_a_day_is_in_one_week_and_one_month(at_ms: int, zone: str) -> None:
    day, week, month = (span_of(window, at_ms, zone) for window in WINDOWS)

    for outer in (week, month):
        assert outer.begins_ms <= day.begins_ms
        assert day.ends_ms <= outer.ends_ms


@given(windows, moments, zones)
def test_a_register_outlives_its_window_and_every_request_in_it(
    window: str, at_ms: int, zone: str
) -> None:
    """A request settles in the window of its admission, however late."""
    span = span_of(window, at_ms, zone)

    assert span.goes_at_ms - span.ends_ms == registers.WINDOW_KEPT_MS
    assert registers.WINDOW_KEPT_MS >= timedelta(days=1) / timedelta(milliseconds=1)


@given(windows, moments, zones)
def test_a_register_is_called_after_its_window(window: str, at_ms: int, zone: str) -> None:
    assert registers.window_of_bucket(span_of(window, at_ms, zone).bucket) == window


@given(moments, zones)
def test_for_good_has_neither_end_nor_zone(at_ms: int, zone: str) -> None:
    assert span_of(LIFETIME, at_ms, zone) == Span(LIFETIME, 0, 0, 0)
    assert registers.window_of_bucket(LIFETIME) == LIFETIME
    assert registers.window_of_bucket(SESSION) == SESSION


def test_another_window_is_a_bug_and_no_budget() -> None:
    with pytest.raises(ValueError, match="no such window"):
        span_of("fortnight", FIRST_MS)


@given(moments, moments)
def test_ids_of_a_span_of_time_are_those_made_in_it(a: int, b: int) -> None:
    begins, ends = min(a, b), max(a, b)
    least, after = registers.ids_between(begins, ends)

    assert registers.request_ms(least) == begins
    assert registers.request_ms(after) == ends
    assert (least < after) == (begins < ends)
    assert registers.request_moment(least) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        milliseconds=begins
    )


# --- what a cap says to the scripts -------------------------------------------------------------

limits = st.integers(0, 2 * REGISTER_NANO_MAX)


def cap(limit: int, *, raised: int = 0, until_ms: int = 0, shadow: bool = False) -> SpendScope:
    return SpendScope(
        "key", "5", DAY, limit, raised_nano=raised, raised_until_ms=until_ms, shadow=shadow
    )


@given(limits)
def test_a_limit_that_no_register_reaches_is_none(limit: int) -> None:
    said = scopes.limit_of(cap(limit), FIRST_MS)

    assert said == (limit if limit < REGISTER_NANO_MAX - 2 else -1)
    assert said < REGISTER_NANO_MAX


@given(limits)
def test_a_cap_in_shadow_says_the_same_limit_and_refuses_nothing(limit: int) -> None:
    """Below -1, so that no script takes it for a limit or for none."""
    open_limit = scopes.limit_of(cap(limit), FIRST_MS)
    shadow = scopes.limit_of(cap(limit, shadow=True), FIRST_MS)

    assert shadow == (-1 if open_limit == -1 else -2 - open_limit)


@given(st.integers(0, 10**12), st.integers(0, 10**12), moments, moments)
def test_a_raise_holds_until_its_moment_and_not_beyond(
    limit: int, raised: int, until_ms: int, at_ms: int
) -> None:
    said = scopes.limit_of(cap(limit, raised=raised, until_ms=until_ms), at_ms)

    assert said == (raised if at_ms < until_ms else limit)


@given(st.integers(-(10**12), -1))
def test_a_limit_below_nothing_admits_nothing(limit: int) -> None:
    assert scopes.limit_of(cap(limit), FIRST_MS) == 0


@given(st.lists(st.sampled_from([DAY, WEEK, MONTH, LIFETIME, SESSION]), max_size=6), moments)
def test_each_cap_has_a_register_of_its_own_with_its_limit_and_its_end(
    kinds: list[str], at_ms: int
) -> None:
    caps = [SpendScope("key", str(at), window, 10 + at) for at, window in enumerate(kinds)]

    rows = scopes.spend_rows("s07", 71, caps, at_ms)

    assert len({row["key"] for row in rows}) == len(rows) == len(caps)
    assert [row["limit_nano"] for row in rows] == [each.limit_nano for each in caps]
    for window, row in zip(kinds, rows, strict=True):
        assert (row["goes_at_ms"] == 0) == (window in (LIFETIME, SESSION))


@given(st.text(max_size=50), st.text(max_size=50), st.integers(1, 10**6), st.integers(1, 10**6))
def test_sessions_of_two_tenants_or_names_are_never_one(
    a: str, b: str, tenant: int, other: int
) -> None:
    one = registers.session_of(tenant, a)

    assert len(one) == registers.SESSION_NAME_LENGTH
    assert (one == registers.session_of(tenant, b)) == (a == b)
    assert (one == registers.session_of(other, a)) == (tenant == other)


@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/Sao_Paulo", "Asia/Beirut"])
def test_a_year_of_days_has_no_gap_and_no_overlap(zone: str) -> None:
    """2011: Apia left a day out; São Paulo and Beirut change their clocks at midnight."""
    at = int(datetime(2011, 1, 1, 12, tzinfo=UTC).timestamp()) * 1000
    end = int(datetime(2012, 1, 2, 12, tzinfo=UTC).timestamp()) * 1000
    begun: list[date] = []
    while at < end:
        span = span_of(DAY, at, zone)
        assert 0 < span.ends_ms - span.begins_ms <= 49 * 3_600_000
        begun.append(local(span.begins_ms, zone).date())
        assert span_of(DAY, span.ends_ms, zone).begins_ms == span.ends_ms
        at = span.ends_ms
    assert begun == sorted(set(begun))
