"""The chargeback: a month by cost centre, exact, the tenant's own, as page, CSV and API."""

import csv
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.models import UsageEvent
from gateway import months
from gateway.models import Team
from gateway.months import Month, NoSuchMonth
from gateway.tenants import chargeback
from tests.gateway.console_rows import offer, served
from tests.people import Person

MARCH = Month(date(2026, 3, 1))
NOW = datetime(2026, 4, 2, tzinfo=UTC)


@pytest.fixture
def used(alice: Person, redis_client: redis.Redis) -> list[UsageEvent]:
    """March: two teams of one cost centre, one of none, a key of no team; and the edges beside."""
    research, support, lab = (
        Team.objects.create(tenant=alice.tenant, slug=name.lower(), name=name, cost_centre=centre)
        for name, centre in (("Research", "R-1"), ("Support", "R-1"), ("Lab", ""))
    )
    sold, other = offer(), offer(model="large")
    # A request's id is some milliseconds older than its event: the day is the id's.
    begin = datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)
    for at in (begin - timedelta(seconds=2), begin + timedelta(days=31)):
        served(alice.tenant, sold, at=at, team_id=research.pk)
    return [
        served(alice.tenant, sold, at=begin, team_id=research.pk),
        served(alice.tenant, other, at=begin + timedelta(days=9), team_id=support.pk),
        served(alice.tenant, sold, at=begin + timedelta(days=30, hours=23), team_id=lab.pk),
        served(alice.tenant, sold, at=begin + timedelta(days=2)),
    ]


def test_the_month_is_split_by_cost_centre_and_nothing_is_lost(
    alice: Person, used: list[UsageEvent]
) -> None:
    centres = chargeback.of_month(alice.tenant, MARCH)

    assert [(centre.name, centre.requests) for centre in centres] == [("R-1", 2), ("", 2)]
    shown = [(line.team, line.model) for centre in centres for line in centre.lines]
    assert shown == [("Research", "small"), ("Support", "large"), ("Lab", "small"), ("", "small")]
    total = sum(centre.cost_pico for centre in centres)
    assert total == sum(event.tenant_cost_pico for event in used)


def test_a_team_is_charged_to_where_it_belongs_now(alice: Person, used: list[UsageEvent]) -> None:
    Team.objects.filter(slug="research").update(cost_centre="R-2")

    centres = chargeback.of_month(alice.tenant, MARCH)

    assert [centre.name for centre in centres] == ["R-1", "R-2", ""]


def test_another_tenant_sees_nothing(charlie: Person, used: list[UsageEvent]) -> None:
    assert chargeback.of_month(charlie.tenant, MARCH) == []


def test_page_and_csv_sum_to_the_month(
    client: Client, alice: Person, used: list[UsageEvent], redis_client: redis.Redis
) -> None:
    # given
    client.force_login(alice.user)
    total = sum(event.tenant_cost_pico for event in used)
    # when
    page = client.get("/billing/?month=2026-03").content.decode()
    text = client.get("/billing/chargeback.csv?month=2026-03").content.decode()
    # then
    assert "Chargeback, March 2026" in page
    assert "R-1" in page
    rows = list(csv.DictReader(StringIO(text)))
    assert {row["month"] for row in rows} == {"2026-03"}
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal(total).scaleb(-12)


@pytest.mark.parametrize(
    "month", ["2026-13", "2026-3", "1999-12", "x", "２０２６-03", "2026-03-01"]
)
def test_what_is_no_month_is_not_found(month: str, client: Client, alice: Person) -> None:
    client.force_login(alice.user)
    assert client.get("/billing/", {"month": month}).status_code == 404
    answer = client.get(f"/api/v1/tenants/{alice.tenant.slug}/chargeback/", {"month": month})
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    with pytest.raises(NoSuchMonth):
        months.named(month, now=NOW)


def test_the_api_tells_the_same_and_moves_a_team(
    client: Client, alice: Person, used: list[UsageEvent], redis_client: redis.Redis
) -> None:
    # given
    client.force_login(alice.user)
    address = f"/api/v1/tenants/{alice.tenant.slug}"
    # when
    moved = client.patch(
        f"{address}/teams/lab/", {"cost_centre": "L-9"}, content_type="application/json"
    )
    told = client.get(f"{address}/chargeback/", {"month": "2026-03"}).json()
    # then
    assert moved.json() == {"slug": "lab", "name": "Lab", "cost_centre": "L-9"}
    assert [centre["cost_centre"] for centre in told["cost_centres"]] == ["L-9", "R-1", ""]
    total = sum(Decimal(centre["cost_usd"]) for centre in told["cost_centres"])
    assert total == Decimal(sum(event.tenant_cost_pico for event in used)).scaleb(-12)
    assert client.patch(f"{address}/teams/other/", {}).status_code == 404


@pytest.mark.parametrize(
    ("first", "following"),
    [((2026, 12), (2027, 1)), ((2028, 2), (2028, 3)), ((2026, 1), (2026, 2))],
)
def test_months_follow_each_other(first: tuple[int, int], following: tuple[int, int]) -> None:
    month = Month(date(*first, 1))
    assert month.following == Month(date(*following, 1))
    assert month.following.before == month
    assert months.named("", now=timezone.now()).first.day == 1
