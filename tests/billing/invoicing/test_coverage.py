"""Each charge on exactly one invoice, whatever is changed between: zones, orders, drafts, voids."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import hypothesis.strategies as st
import pytest
import redis
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, given, settings

from billing.errors import InvoiceRefused
from billing.invoicing import calendar_months, coverage, documents, runs
from billing.invoicing.charge_rectangles import Span, left_of
from billing.limits import quotas
from billing.models import BillingProfile, CoveredSpan, Invoice, PriceVersion, Tenant, UsageEvent
from tests.billing.desk import Desk
from tests.billing.invoicing.test_invoices import USD, Office, office
from tests.billing.open_books import Books, publish, write_posted

__all__ = ["office"]

State = Invoice.State
ZONES = (
    "UTC", "Asia/Tokyo", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Los_Angeles",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "America/St_Johns",
)  # fmt: skip
START = datetime(2026, 3, 1, tzinfo=UTC)
SLUGS = count()
UNDECIDED = """
    SELECT u.id, count(s.id) FILTER (WHERE s.is_live) FROM billing_usageevent u
    LEFT JOIN billing_coveredspan s ON u.tenant_id = s.tenant_id
        AND u.occurred_at >= s.occurred_from AND u.occurred_at < s.occurred_until
        AND u.transfer_id > s.posted_after AND u.transfer_id <= s.posted_upto
    WHERE u.tenant_id = %s GROUP BY u.id HAVING count(s.id) FILTER (WHERE s.is_live) <> %s
"""
spans = st.builds(
    lambda low, high, first, last: Span(
        low, low + high, START + timedelta(days=first), START + timedelta(days=first + last)
    ),
    *[st.integers(0, 6)] * 4,
)


def move(office: Office, zone: str, now: datetime) -> None:
    quotas.change_time_zone(tenant=office.books.tenant, zone=zone, actor="ada", now=now)
    office.books.tenant.refresh_from_db()


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_a_moved_calendar_bills_the_last_month_once(office: Office, zone: str) -> None:
    # given
    office.use(2 * USD, at=datetime(2026, 3, 10, tzinfo=UTC))
    office.use(4 * USD, at=datetime(2026, 3, 31, 23, 59, tzinfo=UTC))
    now = datetime(2026, 4, 10, tzinfo=UTC)
    march = office.issue(now=now)
    # when
    move(office, zone, now)
    # then
    assert runs.draft_due(now=now) == []
    with pytest.raises(InvoiceRefused, match=f"{march.number} covers this period already"):
        office.draft(calendar_months.month(2026, 3, zone), now)
    assert Invoice.objects.get().usage_pico == 6 * USD
    office.use(8 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(calendar_months.month(2026, 4, zone), datetime(2026, 5, 3, tzinfo=UTC))
    assert april.usage_pico == 8 * USD
    assert coverage.open_pico(office.books.tenant) == 0


def test_hours_that_a_moved_calendar_leaves_are_on_the_next_invoice(office: Office) -> None:
    # given
    move(office, "Asia/Tokyo", START)
    office.use(2 * USD, at=datetime(2026, 3, 31, 14, 59, tzinfo=UTC))
    office.use(4 * USD, at=datetime(2026, 3, 31, 20, tzinfo=UTC))
    now = datetime(2026, 4, 2, tzinfo=UTC)
    march = office.issue(calendar_months.month(2026, 3, "Asia/Tokyo"), now)
    # when
    move(office, "UTC", now)
    office.use(8 * USD, at=datetime(2026, 4, 1, tzinfo=UTC))
    april = office.issue(calendar_months.month(2026, 4, "UTC"), datetime(2026, 5, 3, tzinfo=UTC))
    # then
    assert (march.usage_pico, april.usage_pico) == (2 * USD, 12 * USD)
    assert (march.first_day.isoformat(), march.last_day.isoformat()) == ("2026-03-01", "2026-03-31")
    late = april.lines.filter(kind="late")
    assert sum(int(line.exact_pico) for line in late) == 4 * USD


def test_a_draft_moves_with_the_calendar(office: Office) -> None:
    # given
    office.use(2 * USD, at=datetime(2026, 3, 10, tzinfo=UTC))
    now = datetime(2026, 4, 3, tzinfo=UTC)
    first = office.draft(now=now)
    # when
    move(office, "Asia/Tokyo", now)
    second = office.draft(calendar_months.month(2026, 3, "Asia/Tokyo"), now)
    # then
    assert (first.pk, second.time_zone) == (second.pk, "Asia/Tokyo")
    assert second.period_end == datetime(2026, 3, 31, 15, tzinfo=UTC)
    assert Invoice.objects.count() == 1


def test_two_drafts_at_once_share_no_charge_in_either_order(office: Office) -> None:
    # given
    april, now = calendar_months.month(2026, 4, "UTC"), datetime(2026, 5, 3, tzinfo=UTC)
    office.use(2 * USD, at=datetime(2026, 3, 10, tzinfo=UTC))
    office.use(4 * USD, at=datetime(2026, 4, 10, tzinfo=UTC))
    later = office.draft(april, now)
    assert later.usage_pico == 6 * USD
    # when
    earlier = office.draft(now=now)
    # then
    later.refresh_from_db()
    assert (earlier.usage_pico, later.usage_pico) == (2 * USD, 4 * USD)
    assert office.finalise(earlier, now).usage_pico == 2 * USD
    assert office.finalise(later, now).usage_pico == 4 * USD


def test_an_earlier_month_than_an_issued_one_is_refused(office: Office) -> None:
    # given
    april, now = calendar_months.month(2026, 4, "UTC"), datetime(2026, 5, 3, tzinfo=UTC)
    office.use(2 * USD, at=datetime(2026, 3, 10, tzinfo=UTC))
    issued = office.issue(april, now)
    # then
    with pytest.raises(InvoiceRefused, match=f"{issued.number} covers this period already"):
        office.draft(now=now)
    assert Invoice.objects.count() == 1


def test_postgresql_refuses_a_second_cover_and_a_changed_one(office: Office) -> None:
    # given
    office.use(2 * USD)
    invoice = office.issue()
    other = Invoice.objects.create(
        tenant=office.books.tenant,
        period_start=START - timedelta(days=30),
        period_end=START + timedelta(days=60),
        upto_transfer=invoice.upto_transfer,
        created_by="ada",
    )
    span = invoice.spans.get()
    again = {
        "tenant": office.books.tenant,
        "occurred_from": START + timedelta(days=8),
        "occurred_until": START + timedelta(days=20),
        "posted_after": 0,
        "posted_upto": invoice.upto_transfer,
    }
    # then
    for change in (
        lambda: CoveredSpan.objects.create(invoice=other, **again),
        lambda: CoveredSpan.objects.filter(pk=span.pk).update(is_live=False),
        lambda: CoveredSpan.objects.filter(pk=span.pk).update(posted_upto=1),
        lambda: CoveredSpan.objects.filter(pk=span.pk).delete(),
        lambda: CoveredSpan.objects.create(invoice=invoice, **again),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
    assert CoveredSpan.objects.get() == span


@given(whole=spans, taken=st.lists(spans, max_size=6))
def test_what_is_left_of_a_span_is_every_point_that_nobody_took(
    whole: Span, taken: list[Span]
) -> None:
    # when
    left = left_of(whole, taken)
    # then
    for posted in range(1, 13):
        for day in range(13):
            at = START + timedelta(days=day)
            holds = [_has(span, posted, at) for span in left]
            is_free = _has(whole, posted, at) and not any(_has(t, posted, at) for t in taken)
            assert sum(holds) == is_free


def _has(span: Span, posted: int, at: datetime) -> bool:
    return (
        span.posted_after < posted <= span.posted_upto
        and span.occurred_from <= at < span.occurred_until
    )


@pytest.fixture
def price(transactional_db: None) -> PriceVersion:
    return publish(START)


def office_of(client: redis.Redis, price: PriceVersion) -> Office:
    """Another tenant of the same house, with nothing used yet; nothing goes through Redis."""
    tenant = Tenant.objects.create(slug=f"tenant-{next(SLUGS)}", name="Any")
    BillingProfile.objects.create(
        tenant=tenant, legal_name="Any GmbH", address="1 Any Street", country="DE"
    )
    return Office(Books(Desk(client=client, tenant=tenant.pk), tenant, price))


actions = st.one_of(
    st.tuples(st.just("use"), st.integers(0, 100)),
    st.tuples(st.just("move"), st.sampled_from(ZONES)),
    st.tuples(st.just("draft"), st.integers(3, 6)),
    st.tuples(st.just("due"), st.integers(1, 40)),
    st.tuples(st.just("finalise"), st.integers(0, 3)),
    st.tuples(st.just("void"), st.integers(0, 3)),
    st.tuples(st.just("profile"), st.none()),
)


@given(steps=st.lists(actions, min_size=4, max_size=25))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_charge_is_on_one_invoice_whatever_is_changed(
    redis_client: redis.Redis, price: PriceVersion, steps: list[tuple[str, object]]
) -> None:
    # given
    office = office_of(redis_client, price)
    now = START + timedelta(days=35)
    # when
    for what, how in steps:
        now += timedelta(hours=7)
        if what == "due":
            now += timedelta(days=int(str(how)))
        try:
            act(office, what, how, now)
        except InvoiceRefused:
            pass
        assert_no_charge_is_on_two(office.books)
    # then
    BillingProfile.objects.get_or_create(
        tenant=office.books.tenant,
        defaults={"legal_name": "Any", "address": "1 Any Street", "country": "DE"},
    )
    end = now + timedelta(days=140)
    office.draft(calendar_months.last_month(end, office.books.tenant.time_zone), end)
    for invoice in _in_state(office.books, State.DRAFT):
        office.finalise(invoice, end)
    assert _undecided(office.books, expected=1) == []
    issued = sum(int(one.usage_pico) for one in _in_state(office.books, State.FINALISED))
    used = UsageEvent.objects.filter(tenant=office.books.tenant)
    assert issued == sum(event.tenant_cost_pico for event in used)
    assert coverage.open_pico(office.books.tenant) == 0


def act(office: Office, what: str, how: object, now: datetime) -> None:
    match what:
        case "use":
            at = START + timedelta(hours=25 * int(str(how)))
            with transaction.atomic():
                write_posted(office.books.tenant, office.books.price, output_tokens=2, at=at)
        case "move":
            office.books.tenant.time_zone = str(how)
            office.books.tenant.save(update_fields=["time_zone"])
        case "draft":
            office.draft(
                calendar_months.month(2026, int(str(how)), office.books.tenant.time_zone), now
            )
        case "due":
            runs.draft_due(now=now)
        case "finalise" | "void":
            state = State.DRAFT if what == "finalise" else State.FINALISED
            found = list(_in_state(office.books, state))[int(str(how)) :]
            for invoice in found[:1]:
                if what == "finalise":
                    office.finalise(invoice, now)
                else:
                    documents.void(invoice_id=invoice.pk, reason="wrong", voided_by="ada", now=now)
        case "profile":
            gone, _ = BillingProfile.objects.filter(tenant=office.books.tenant).delete()
            if not gone:
                BillingProfile.objects.create(
                    tenant=office.books.tenant, legal_name="B", address="2 Street", country="FR"
                )


def _in_state(books: Books, state: str) -> Iterator[Invoice]:
    yield from Invoice.objects.filter(tenant=books.tenant, state=state).order_by("period_end")


def assert_no_charge_is_on_two(books: Books) -> None:
    assert [found for found in _undecided(books, expected=1) if found[1] > 1] == []
    live = Invoice.objects.filter(tenant=books.tenant).exclude(state=State.VOID)
    for invoice in live:
        lines = sum(int(line.exact_pico) for line in invoice.lines.all())
        assert lines == invoice.usage_pico


def _undecided(books: Books, *, expected: int) -> list[tuple[int, int]]:
    """Charges with how many live spans hold them, where that is not what it should be."""
    with connection.cursor() as cursor:
        cursor.execute(UNDECIDED, [books.tenant.pk, expected])
        return list(cursor.fetchall())
