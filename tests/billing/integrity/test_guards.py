"""What PostgreSQL itself refuses, whoever asks."""

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing.models import Account, Entry, PriceVersion, Sku, Tenant, Transfer, UsageEvent

pytestmark = pytest.mark.django_db

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
RATES = {
    "input_pico": 2,
    "cache_read_pico": 1,
    "cache_write_5m_pico": 2,
    "cache_write_1h_pico": 2,
    "output_pico": 8,
    "reasoning_pico": 8,
    "source": "test",
    "recorded_by": "test",
}


@pytest.fixture
def sku() -> Sku:
    return Sku.objects.create(code="acme/swift-1")


def version(sku: Sku, since: datetime, until: datetime | None, **changes: object) -> PriceVersion:
    during = DateTimeTZRange(since, until, "[)")
    return PriceVersion.objects.create(sku=sku, during=during, **{**RATES, **changes})


def refused(match: str) -> "pytest.RaisesExc[IntegrityError]":
    return pytest.raises(IntegrityError, match=match)


def test_two_versions_of_one_price_never_overlap(sku: Sku) -> None:
    # given
    version(sku, MARCH, MAY)
    # when / then
    with refused("price_no_overlap"), transaction.atomic():
        version(sku, APRIL, None)
    version(sku, MAY, None)
    version(sku, APRIL, None, service_tier=1)
    version(sku, APRIL, None, context_over=200_000)


def test_a_price_version_changes_only_by_closing_it(sku: Sku) -> None:
    # given
    price = version(sku, MARCH, None)
    rows = PriceVersion.objects.filter(pk=price.pk)
    # when / then
    with refused("only changes by closing"), transaction.atomic():
        rows.update(output_pico=9)
    with refused("only changes by closing"), transaction.atomic():
        rows.update(during=DateTimeTZRange(APRIL, MAY, "[)"))
    rows.update(during=DateTimeTZRange(MARCH, MAY, "[)"))
    with refused("only changes by closing"), transaction.atomic():
        rows.update(during=DateTimeTZRange(MARCH, APRIL, "[)"))
    with refused("never deleted"), transaction.atomic():
        rows.delete()


def test_a_negative_rate_is_refused(sku: Sku) -> None:
    with refused("price_not_negative"), transaction.atomic():
        version(sku, MARCH, None, reasoning_pico=-1)


def test_a_zero_price_must_say_that_it_is_free(sku: Sku) -> None:
    # given
    nothing = {name: 0 for name in RATES if name.endswith("_pico")}
    # when / then
    with refused("price_zero_only_if_free"), transaction.atomic():
        version(sku, MARCH, None, **nothing)
    version(sku, MARCH, None, free=True, **nothing)


def test_a_price_needs_a_beginning(sku: Sku) -> None:
    with refused("price_dated"), transaction.atomic():
        PriceVersion.objects.create(sku=sku, during=DateTimeTZRange(None, MAY, "[)"), **RATES)


def check_deferred() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def transfer(*amounts: int, key: str = "one") -> Transfer:
    cash, _ = Account.objects.get_or_create(kind=Account.Kind.CASH, tenant=None, supplier="")
    made = Transfer.objects.create(code=Transfer.Code.GRANT, idempotency_key=key)
    for amount in amounts:
        Entry.objects.create(transfer=made, account=cash, amount_pico=Decimal(amount))
    return made


@pytest.mark.parametrize("amounts", [(5, -4), (5,), ()])
def test_a_transfer_that_does_not_sum_to_zero_is_refused(amounts: tuple[int, ...]) -> None:
    with refused("entries that sum to"), transaction.atomic():
        transfer(*amounts)
        check_deferred()


def test_an_entry_added_to_a_finished_transfer_is_refused() -> None:
    # given
    finished = transfer(5, -5)
    check_deferred()
    account = Account.objects.get()
    # when / then
    with refused("3 entries that sum to 1"), transaction.atomic():
        Entry.objects.create(transfer=finished, account=account, amount_pico=Decimal(1))
        check_deferred()


def test_the_ledger_is_append_only() -> None:
    # given
    finished = transfer(5, -5)
    check_deferred()
    # when / then
    with refused("billing_entry is append-only"), transaction.atomic():
        Entry.objects.update(amount_pico=0)
    with refused("billing_transfer is append-only"), transaction.atomic():
        Transfer.objects.filter(pk=finished.pk).update(memo="other")
    with refused("billing_entry is append-only"), transaction.atomic():
        Entry.objects.all().delete()


def usage_event(**changes: object) -> UsageEvent:
    tenant, _ = Tenant.objects.get_or_create(slug="aurora", name="Aurora")
    facts: dict[str, object] = {
        # A UUIDv7 of 2026-03-10T23:59:59.999Z.
        "request_id": uuid.UUID("019cda31-73ff-7000-8000-000000000001"),
        "attempt": 0,
        "day": date(2026, 3, 10),
        "tenant": tenant,
        "sku": "acme/swift-1",
        "supplier": "acme",
        "model": "swift-1",
        "outcome": "ok",
        "usage_source": "provider",
        "occurred_at": MARCH,
        "settled_at": MARCH,
        "stream_id": "1-1",
        "body_hash": b"",
    }
    return UsageEvent.objects.create(**{**facts, **changes})


def test_the_day_of_an_event_is_the_day_of_its_id() -> None:
    usage_event()
    with refused("usage_event_day_of_id"), transaction.atomic():
        usage_event(attempt=1, day=date(2026, 3, 11))


def test_a_posted_event_is_never_rewritten() -> None:
    # given
    usage_event()
    # when / then
    with refused("never rewritten"), transaction.atomic():
        UsageEvent.objects.update(tenant_cost_pico=1)
    with refused("never deleted"), transaction.atomic():
        UsageEvent.objects.all().delete()


def test_a_quarantined_event_can_be_resolved_once() -> None:
    # given
    usage_event(state="quarantined", quarantine_reason="rated differently")
    # when / then
    with refused("never rewritten"), transaction.atomic():
        UsageEvent.objects.update(input_tokens=5)
    UsageEvent.objects.update(state="posted", tenant_cost_pico=5)
    with refused("never rewritten"), transaction.atomic():
        UsageEvent.objects.update(tenant_cost_pico=6)


def test_one_attempt_is_one_event() -> None:
    usage_event()
    with refused("usage_event_unique"), transaction.atomic():
        usage_event()
