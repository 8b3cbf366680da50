"""Plans from a later moment on: begun, withdrawn, refused, and what each request is priced at."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from billing import basis, events
from billing.drain import late_counts
from billing.errors import PriceRefused
from billing.events import AttemptDetail
from billing.holding.holds import SettledAttempt
from billing.models import AuditEntry, PlanAssignment, PriceList, Tenant, UsageEvent
from billing.operations import recount
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices.price_spans import lists_at
from billing.usage import CanonicalUsage
from tests.billing import desk as desks
from tests.billing.open_books import Books

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant.objects.create(slug="aurora", name="Aurora")


def a_plan(slug: str) -> PriceList:
    return PriceList.objects.create(slug=slug, name=slug.title())


def assign(tenant: Tenant, plan: PriceList | None, begins: datetime | None = None) -> None:
    plans.assign(tenant=tenant, plan=plan, actor="op", now=NOW, begins_at=begins)


def withdraw(tenant: Tenant, row: PlanAssignment, now: datetime = NOW) -> None:
    plans.withdraw(tenant=tenant, assignment_id=row.pk, actor="op", now=now)


def rows() -> list[Any]:
    found = PlanAssignment.objects.order_by("pk")
    return list(found.values_list("tenant", "plan", "assigned_at", "withdrawn_at"))


def test_a_plan_to_come_holds_from_its_millisecond_and_not_before(tenant: Tenant) -> None:
    # given
    startup, scale = a_plan("startup"), a_plan("scale")
    assign(tenant, startup)
    assign(tenant, scale, DECEMBER)
    # when
    (spans,) = plans.lists_by_tenant([tenant.pk], since=NOW).values()
    # then: as a process sees it that loaded it before, and as the rows say it
    for moment, plan in ((DECEMBER - MS, startup), (DECEMBER, scale), (DECEMBER + MS, scale)):
        assert lists_at(spans, int(moment.timestamp() * 1000)) == (plan.pk,)
        assert plans.lists_of(tenant.pk, moment) == (plan.pk,)
        assert plans.of(tenant, moment) == plan
        assert list(plans.tenants_on(plan, moment)) == [tenant]
    assert plans.texts([tenant], NOW) == {tenant.pk: "Startup; Scale from 1 December 2026"}
    assert plans.texts([tenant], DECEMBER) == {tenant.pk: "Scale"}
    noted = AuditEntry.objects.filter(action="tenant.plan").latest("pk")
    assert (noted.before, noted.after) == (
        {"plan": "startup"},
        {"plan": "scale", "from": "2026-12-01T00:00:00+00:00"},
    )


def test_an_instant_between_two_milliseconds_begins_with_the_next_one(tenant: Tenant) -> None:
    # given
    startup = a_plan("startup")
    assign(tenant, startup, DECEMBER + timedelta(microseconds=1))
    # when
    (spans,) = plans.lists_by_tenant([tenant.pk], since=NOW).values()
    # then
    first_ms = int(DECEMBER.timestamp() * 1000)
    assert lists_at(spans, first_ms) == plans.lists_of(tenant.pk, DECEMBER) == ()
    assert lists_at(spans, first_ms + 1) == plans.lists_of(tenant.pk, DECEMBER + MS)
    assert lists_at(spans, first_ms + 1) == (startup.pk,)


def test_a_tenant_s_own_list_goes_first_on_every_plan(tenant: Tenant) -> None:
    # given
    own = PriceList.objects.create(kind="tenant", tenant=tenant, slug="own", name="Own")
    startup = a_plan("startup")
    assign(tenant, startup, DECEMBER)
    # when / then
    assert plans.lists_of(tenant.pk, NOW) == (own.pk,)
    assert plans.lists_of(tenant.pk, DECEMBER) == (own.pk, startup.pk)


def test_what_is_to_come_can_be_withdrawn_until_it_begins(tenant: Tenant) -> None:
    # given
    startup, scale = a_plan("startup"), a_plan("scale")
    assign(tenant, startup)
    assign(tenant, scale, DECEMBER)
    (row,) = plans.coming([tenant.pk], NOW)
    # when
    with pytest.raises(PriceRefused, match="it has begun"):
        withdraw(tenant, row, DECEMBER)
    withdraw(tenant, row, DECEMBER - MS)
    # then
    assert plans.of(tenant, DECEMBER + DAY) == startup
    assert plans.coming([tenant.pk], NOW) == []
    noted = AuditEntry.objects.get(action="tenant.plan_withdrawn")
    assert noted.before == {"plan": "scale", "from": "2026-12-01T00:00:00+00:00"}
    with pytest.raises(PriceRefused, match="withdrawn already"):
        withdraw(tenant, row)
    # and the moment is free again, also for the same plan
    assign(tenant, scale, DECEMBER)
    assert plans.of(tenant, DECEMBER) == scale


def test_another_tenant_s_plan_is_not_there_to_withdraw(tenant: Tenant) -> None:
    # given
    other = Tenant.objects.create(slug="boreal", name="Boreal")
    assign(other, a_plan("scale"), DECEMBER)
    (row,) = plans.coming([other.pk], NOW)
    before = rows()
    # when / then
    with pytest.raises(PriceRefused, match="no such plan to come"):
        withdraw(tenant, row)
    assert rows() == before


@pytest.mark.parametrize(
    ("begins", "why"),
    [
        (NOW - timedelta(microseconds=1), "what was rated stays"),
        (datetime(2026, 12, 2), "needs a time zone"),  # noqa: DTZ001
        (NOW + timedelta(days=733), "within two years"),
        (DECEMBER, "at that moment begins Startup"),
    ],
)
def test_what_is_past_too_far_or_taken_changes_nothing(
    begins: datetime, why: str, tenant: Tenant
) -> None:
    # given
    scale = a_plan("scale")
    assign(tenant, a_plan("startup"), DECEMBER)
    before = (rows(), AuditEntry.objects.count())
    # when / then
    with pytest.raises(PriceRefused, match=why):
        assign(tenant, scale, begins)
    assert (rows(), AuditEntry.objects.count()) == before


def test_the_plan_that_holds_then_anyway_is_no_change(tenant: Tenant) -> None:
    # given
    startup = a_plan("startup")
    assign(tenant, startup, DECEMBER)
    before = rows()
    # when
    assign(tenant, None)
    assign(tenant, startup, DECEMBER)
    assign(tenant, startup, DECEMBER + DAY)
    # then
    assert rows() == before


def test_only_so_many_are_to_come(tenant: Tenant) -> None:
    # given
    turns = (a_plan("startup"), a_plan("scale"))
    for number in range(plans.COMING_MAX):
        assign(tenant, turns[number % 2], DECEMBER + number * DAY)
    # when / then
    with pytest.raises(PriceRefused, match="no more than 24"):
        assign(tenant, None, DECEMBER + 100 * DAY)
    assert len(rows()) == plans.COMING_MAX
    assign(tenant, turns[1])


@pytest.mark.parametrize(
    ("stated", "zone", "moment"),
    [
        ("2026-12-01", "UTC", "2026-12-01T00:00:00+00:00"),
        ("2026-12-01", "America/New_York", "2026-12-01T05:00:00+00:00"),
        ("2026-12-01", "Asia/Tokyo", "2026-11-30T15:00:00+00:00"),
        # The day on which Cairo's clocks skip midnight begins at 01:00.
        ("2026-04-24", "Africa/Cairo", "2026-04-23T22:00:00+00:00"),
        # The day on which Havana's first hour comes twice begins with the first of them.
        ("2026-11-01", "America/Havana", "2026-11-01T04:00:00+00:00"),
        ("2026-12-01T00:00:00+01:00", "Asia/Tokyo", "2026-11-30T23:00:00+00:00"),
        ("2026-12-01T00:00:00Z", "Asia/Tokyo", "2026-12-01T00:00:00+00:00"),
    ],
)
def test_a_day_begins_on_the_tenant_s_own_calendar(stated: str, zone: str, moment: str) -> None:
    assert plans.moment_of(stated, zone).isoformat() == moment


@pytest.mark.parametrize(
    "stated",
    [
        "2026-12-01T00:00:00",
        "tomorrow",
        "2026-13-01",
        "",
        20261201,
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
    ],
)
def test_what_is_no_moment_is_refused(stated: object) -> None:
    with pytest.raises(PriceRefused, match="neither a day|no time zone"):
        plans.moment_of(stated, "UTC")


def test_a_moment_within_a_day_is_told_with_its_hour(tenant: Tenant) -> None:
    # given
    tenant.time_zone = "Europe/Berlin"
    assign(tenant, a_plan("scale"), DECEMBER)
    # when / then
    told = {tenant.pk: "list prices; Scale from 1 December 2026, 01:00 CET"}
    assert plans.texts([tenant], NOW) == told


def test_postgres_keeps_assignments_but_for_a_withdrawal_before_they_begin(tenant: Tenant) -> None:
    # given
    assign(tenant, a_plan("startup"), DECEMBER)
    found, before = PlanAssignment.objects.all(), rows()
    # when / then
    for change in (
        lambda: found.delete(),
        lambda: found.update(plan=None),
        lambda: found.update(withdrawn_at=NOW, assigned_at=NOW + DAY),
        lambda: found.update(withdrawn_at=DECEMBER),
        lambda: PlanAssignment.objects.create(
            tenant=tenant, assigned_at=DECEMBER, assigned_by="op"
        ),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            change()
    assert rows() == before


DELIVERED = CanonicalUsage(input_tokens=100, output_tokens=40)


@pytest.mark.parametrize(("after_ms", "off"), [(-1, 0), (0, 2), (1, 2)])
def test_a_late_count_is_priced_by_the_plan_of_the_request_s_own_moment(
    books: Books, after_ms: int, off: int
) -> None:
    # given a plan with half off since a moment, and a request around it whose owner was killed
    half, noon = a_plan("half"), desks.at(desks.NOON_MS)
    price_lists.set_rule(
        price_list=half, pattern="", change_ppm=-500_000, actor="op", now=noon - DAY
    )
    plans.assign(tenant=books.tenant, plan=half, actor="op", now=noon - DAY, begins_at=noon)
    books.desk.now_ms, books.desk.price = desks.NOON_MS + after_ms, None
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.now_ms += 3_600_000
    books.desk.expire(request_id)
    books.drain()
    event = UsageEvent.objects.get(request_id=request_id)
    # when it is counted an hour later
    now = desks.at(books.desk.now_ms)
    late_counts.settle(books.desk.client, event, DELIVERED, basis=basis.ENGINE, now=now)
    books.drain()
    # then
    listed = 100 * desks.INPUT_PICO + 40 * desks.OUTPUT_PICO
    late = UsageEvent.objects.get(request_id=request_id, attempt__gte=0)
    assert late.tenant_cost_pico == (listed // off if off else listed)
    assert late.price_version is not None
    assert late.price_version.price_list == (half if off else None)
    assert books.check() == {}


def test_a_figure_for_a_person_is_priced_by_the_plan_of_the_request_s_own_moment(
    books: Books,
) -> None:
    # given a request without counts a millisecond before a plan with half off begins
    half, noon = a_plan("half"), desks.at(desks.NOON_MS)
    price_lists.set_rule(
        price_list=half, pattern="", change_ppm=-500_000, actor="op", now=noon - DAY
    )
    begins = noon + MS
    plans.assign(tenant=books.tenant, plan=half, actor="op", now=noon - DAY, begins_at=begins)
    costs = []
    for at_ms in (desks.NOON_MS, desks.NOON_MS + 1):
        books.desk.now_ms = at_ms
        request_id = books.desk.placed(hold_nano=1_000_000)
        books.desk.now_ms += 60_000
        made = books.desk.event(request_id, usage=None, cost_pico=0)
        made.detail = AttemptDetail()
        body = events.encode(made).replace(b'"detail":{', b'"detail":{"recount":[120,30]')
        books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
        books.drain()
        # when
        suggestion = recount.suggestion(UsageEvent.objects.get(request_id=request_id))
        assert suggestion is not None
        costs.append((suggestion.cost_pico, suggestion.supplier_pico))
    # then
    listed = 120 * desks.INPUT_PICO + 30 * desks.OUTPUT_PICO
    assert costs == [(listed, listed), (listed // 2, listed)]
