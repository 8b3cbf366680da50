"""A tenant's terms: by an operator in the admin console and over REST, by the tenant as far as the
house allows."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from billing.holding import hold_modes
from billing.models import AlertChannel, AuditEntry, PlanAssignment, PriceList, Tenant
from billing.operations import rebuild
from billing.prices import plans
from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.tenants import keys
from tests.people import Person

SETTINGS = "/api/v1/tenants/aurora/settings/"
CHANNELS = "/api/v1/tenants/aurora/alert-channels/"
USD = 10**12


@pytest.fixture
def plan(db: None) -> PriceList:
    return PriceList.objects.create(slug="startup", name="Startup")


@pytest.fixture
def operator(db: None) -> Client:
    """Staff who may change tenants and belongs to none."""
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_tenant"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def headers(alice: Person) -> dict[str, str]:
    issued = keys.issue(
        tenant=alice.tenant,
        name="ops",
        scopes=(keys.MANAGEMENT,),
        created_by="test",
        now=timezone.now(),
    )
    return {"Authorization": f"Bearer {issued.plain}"}


@pytest.fixture
def overdraft(alice: Person) -> Tenant:
    """Alice's tenant, with expected holds and two dollars beyond each limit."""
    hold_modes.set_hold_mode(
        tenant=alice.tenant,
        mode="expected",
        overdraft_pico=2 * USD,
        actor="op",
        now=timezone.now(),
    )
    return alice.tenant


def patch(client: Client, body: Any, headers: dict[str, str] | None = None) -> Any:
    return client.patch(SETTINGS, body, content_type="application/json", headers=headers)


def test_an_operator_puts_tenants_on_a_plan_once_it_is_confirmed(
    admin_client: Client,
    alice: Person,
    charlie: Person,
    plan: PriceList,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Any,
) -> None:
    # given
    page = "/admin/billing/tenant/"
    asked = {"action": "put_on_plan", "_selected_action": [alice.tenant.pk, charlie.tenant.pk]}

    # when it is only looked at
    shown = admin_client.post(page, asked)

    # then nothing is changed
    assert "Put them on it" in shown.content.decode()
    assert not PlanAssignment.objects.exists()

    # and when it is confirmed
    confirmed = asked | {"_confirm": "1", "plan": plan.pk, "reason": "signed"}
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(page, confirmed)

    # then both pay its prices, it is written down why, and the data plane is told
    now = timezone.now()
    assert set(plans.tenants_on(plan, now)) == {alice.tenant, charlie.tenant}
    assert plans.lists_of(alice.tenant.pk, now) == (plan.pk,)
    noted = AuditEntry.objects.get(action="tenant.plan", tenant=alice.tenant)
    assert (noted.actor, noted.reason, noted.after) == ("admin", "signed", {"plan": "startup"})
    assert redis_client.get(SNAPSHOT_VERSION_KEY) is not None


def test_a_tenant_s_own_price_list_is_no_plan(admin_client: Client, alice: Person) -> None:
    own = PriceList.objects.create(kind="tenant", tenant=alice.tenant, slug="own", name="Own")
    asked = {"action": "put_on_plan", "_selected_action": [alice.tenant.pk]}
    asked |= {"_confirm": "1", "plan": own.pk, "reason": "slip"}

    answer = admin_client.post("/admin/billing/tenant/", asked)

    assert answer.status_code == 200
    assert not PlanAssignment.objects.exists()


def test_an_operator_changes_any_tenant_s_terms(
    operator: Client, alice: Person, plan: PriceList, redis_client: redis.Redis
) -> None:
    # given
    rebuild.rebuild_cold(redis_client, now=timezone.now())
    asked = {"plan": "startup", "hold_mode": "expected", "overdraft_usd": "2.5"}

    # when
    answer = patch(operator, asked | {"time_zone": "Europe/Oslo"})

    # then
    expected = asked | {"time_zone": "Europe/Oslo", "credit_limit_usd": "0", "low_credit_usd": None}
    expected |= {"second_factor_demanded": False, "plans_to_come": []}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert operator.get(SETTINGS).json() == expected
    noted = AuditEntry.objects.filter(tenant=alice.tenant, actor="olga")
    actions = {"tenant.time_zone", "tenant.hold_mode", "tenant.plan"}
    assert set(noted.values_list("action", flat=True)) == actions
    assert patch(operator, {"plan": None}).json()["plan"] is None


def test_a_tenant_changes_what_costs_the_house_nothing(
    client: Client, overdraft: Tenant, headers: dict[str, str], redis_client: redis.Redis
) -> None:
    # given
    rebuild.rebuild_cold(redis_client, now=timezone.now())

    # when
    zone = patch(client, {"time_zone": "Asia/Tokyo", "hold_mode": "strict"}, headers)
    back = patch(client, {"hold_mode": "expected", "overdraft_usd": "1"}, headers)

    # then
    assert (zone.json()["time_zone"], zone.json()["hold_mode"]) == ("Asia/Tokyo", "strict")
    assert (back.json()["hold_mode"], back.json()["overdraft_usd"]) == ("expected", "1")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"plan": "startup"}, 403),
        ({"plan": None}, 403),
        ({"overdraft_usd": "2.000000000001"}, 403),
        ({"time_zone": "Europe/Oslo", "overdraft_usd": "3"}, 403),
        ({"overdraft_usd": 1.5}, 400),
        ({"overdraft_usd": "-1"}, 422),
        ({"hold_mode": "loose"}, 400),
        ({"overdraft_usd": "0"}, 422),
        ({"time_zone": "Europe/Atlantis"}, 422),
        ({"time_zone": "Europe/Atlantis", "hold_mode": "strict"}, 422),
    ],
)
def test_what_is_not_the_tenant_s_to_change_changes_nothing(
    asked: dict[str, Any],
    status: int,
    client: Client,
    overdraft: Tenant,
    plan: PriceList,
    headers: dict[str, str],
    redis_client: redis.Redis,
) -> None:
    # given
    rebuild.rebuild_cold(redis_client, now=timezone.now())
    before, entries = client.get(SETTINGS, headers=headers).json(), AuditEntry.objects.count()

    # when
    answer = patch(client, asked, headers)

    # then
    assert answer.status_code == status
    assert answer["content-type"] == "application/problem+json"
    assert client.get(SETTINGS, headers=headers).json() == before
    assert AuditEntry.objects.count() == entries


def test_a_plan_that_there_is_not_is_refused(operator: Client, alice: Person) -> None:
    answer = patch(operator, {"plan": "nope", "hold_mode": "strict"})

    assert (answer.status_code, answer.json()["detail"]) == (422, "there is no plan nope")


def test_staff_reach_no_tenant_from_where_the_admin_console_is_closed(
    operator: Client, alice: Person
) -> None:
    answer = operator.get(SETTINGS, REMOTE_ADDR="192.0.2.7")

    assert answer.status_code == 404


def test_staff_without_the_right_to_change_tenants_find_none(client: Client, alice: Person) -> None:
    client.force_login(User.objects.create_user("sam", is_staff=True))

    assert client.get(SETTINGS).status_code == 404


def test_who_is_told_is_set_over_rest_and_noted(
    client: Client, alice: Person, bob: Person, headers: dict[str, str]
) -> None:
    # given
    asked = {"kind": "webhook", "target": "https://example.com/h"}

    # when
    made = client.post(CHANNELS, asked, content_type="application/json", headers=headers)
    again = client.post(CHANNELS, asked, content_type="application/json", headers=headers)

    # then
    assert made.status_code == 201
    assert again.json() == made.json()
    assert len(made.json()["secret"]) == 64
    assert client.get(CHANNELS, headers=headers).json() == [made.json()]

    # and a developer sees the address, and neither the secret nor a way to change it
    client.force_login(bob.user)
    assert client.get(CHANNELS).json() == [made.json() | {"secret": None}]
    one = f"{CHANNELS}{made.json()['id']}/"
    assert client.delete(one).status_code == 403

    # and it is removed once
    assert client.delete(one, headers=headers).status_code == 204
    assert client.delete(one, headers=headers).status_code == 404
    noted = AuditEntry.objects.filter(tenant=alice.tenant, action__startswith="alert_channel")
    assert [each.action for each in noted.order_by("pk")] == [
        "alert_channel.add",
        "alert_channel.remove",
    ]


def test_another_tenant_s_channel_is_not_found(
    client: Client, alice: Person, charlie: Person, headers: dict[str, str]
) -> None:
    theirs = AlertChannel.objects.create(
        tenant=charlie.tenant, kind="mail", target="c@c.test", created_at=timezone.now()
    )

    assert client.delete(f"{CHANNELS}{theirs.pk}/", headers=headers).status_code == 404
    assert client.get(CHANNELS, headers=headers).json() == []
    assert AlertChannel.objects.count() == 1


@pytest.mark.parametrize("target", ["http://10.0.0.1/h", "nonsense", "https://u:p@example.com/"])
def test_a_webhook_that_may_not_be_called_is_refused(
    target: str, client: Client, alice: Person, headers: dict[str, str]
) -> None:
    asked = {"kind": "webhook", "target": target}

    answer = client.post(CHANNELS, asked, content_type="application/json", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "limit_refused")
    assert not AlertChannel.objects.exists()


def test_an_operator_dates_a_plan_and_withdraws_it_over_rest(
    operator: Client,
    alice: Person,
    plan: PriceList,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Any,
) -> None:
    # given a tenant whose days begin in Tokyo
    Tenant.objects.filter(pk=alice.tenant.pk).update(time_zone="Asia/Tokyo")
    day = timezone.now().date() + timedelta(days=40)
    begins = f"{day - timedelta(days=1)}T15:00:00Z"

    # when
    with django_capture_on_commit_callbacks(execute=True):
        dated = patch(operator, {"plan": "startup", "plan_from": day.isoformat()}).json()

    # then it is to come, and the data plane was told
    (coming,) = dated["plans_to_come"]
    assert (dated["plan"], coming["plan"], coming["begins_at"]) == (None, "startup", begins)
    assert operator.get(SETTINGS).json() == dated
    assert redis_client.get(SNAPSHOT_VERSION_KEY) is not None
    assert plans.of(alice.tenant, timezone.now()) is None

    # and when it is replaced by another day, in one call
    later = {"withdraw_plan": coming["id"], "plan": "startup", "plan_from": f"{day}T12:00:00+09:00"}
    (replaced,) = patch(operator, later).json()["plans_to_come"]
    assert replaced["begins_at"] == f"{day}T03:00:00Z"

    # and withdrawn
    assert patch(operator, {"withdraw_plan": replaced["id"]}).json()["plans_to_come"] == []
    again = patch(operator, {"withdraw_plan": replaced["id"]})
    assert (again.status_code, again.json()["detail"]) == (422, "it is withdrawn already")


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"plan": "startup", "plan_from": "2020-01-01"}, 422, "what was rated stays"),
        ({"plan": "startup", "plan_from": "soon"}, 422, "neither a day"),
        ({"plan": "startup", "plan_from": "2026-12-01T00:00:00"}, 422, "no time zone"),
        ({"plan_from": "2026-12-01"}, 400, "Say which plan begins then."),
        ({"plan": "startup", "plan_from": None}, 400, "may not be null"),
        ({"plan": "nope", "plan_from": "2026-12-01"}, 422, "there is no plan nope"),
        ({"withdraw_plan": 0}, 422, "no such plan to come"),
        ({"withdraw_plan": 2**70}, 422, "no such plan to come"),
    ],
)
def test_a_date_that_is_none_changes_nothing(
    asked: dict[str, Any], status: int, said: str, operator: Client, alice: Person, plan: PriceList
) -> None:
    answer = patch(operator, asked | {"hold_mode": "strict"})

    assert (answer.status_code, said in answer.content.decode()) == (status, True)
    assert (PlanAssignment.objects.count(), AuditEntry.objects.count()) == (0, 0)


@pytest.mark.parametrize("asked", [{"withdraw_plan": 1}, {"plan": "startup", "plan_from": "x"}])
def test_a_tenant_dates_and_withdraws_no_plan(
    asked: dict[str, Any], client: Client, alice: Person, plan: PriceList, headers: dict[str, str]
) -> None:
    assert patch(client, asked, headers).status_code == 403


def test_an_operator_dates_a_plan_in_the_admin_console_and_withdraws_it(
    admin_client: Client,
    client: Client,
    alice: Person,
    charlie: Person,
    plan: PriceList,
    redis_client: redis.Redis,
) -> None:
    # given tenants with calendars of their own
    now = timezone.now()
    Tenant.objects.filter(pk=charlie.tenant.pk).update(time_zone="America/New_York")
    day = now.date() + timedelta(days=40)
    page = "/admin/billing/tenant/"
    chosen = [alice.tenant.pk, charlie.tenant.pk]
    asked = {"action": "put_on_plan", "_selected_action": chosen, "_confirm": "1"}
    asked |= {"plan": plan.pk, "reason": "signed"}

    # when
    refused = admin_client.post(page, asked | {"begins": "2020-01-01"}).content.decode()
    told = admin_client.post(page, asked | {"begins": day.isoformat()}, follow=True)

    # then
    assert "what was rated stays as it is" in refused
    shown = f"{day.day} {day:%B %Y}"
    assert f"2 tenants pay Startup from {shown}." in told.content.decode()
    assert f"list prices; Startup from {shown}" in told.content.decode()
    rows = plans.coming(chosen, now)
    begun = {row.tenant_id: row.assigned_at.isoformat() for row in rows}
    there = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("America/New_York"))
    assert begun == {
        alice.tenant.pk: f"{day}T00:00:00+00:00",
        charlie.tenant.pk: there.astimezone(UTC).isoformat(),
    }
    client.force_login(alice.user)
    page_shown = client.get("/billing/").content.decode()
    assert f"You pay: list prices; Startup from {shown}." in page_shown

    # and when one is withdrawn, which can be done once
    asked = {"action": "withdraw", "_selected_action": [row.pk for row in rows]}
    once = admin_client.post("/admin/billing/planassignment/", asked, follow=True)
    twice = admin_client.post("/admin/billing/planassignment/", asked, follow=True)
    assert "Aurora: withdrawn." in once.content.decode()
    assert "Aurora: it is withdrawn already" in twice.content.decode()
    assert plans.coming(chosen, now) == []
    plans.assign(tenant=alice.tenant, plan=plan, actor="op", now=now)
    filtered = admin_client.get(page, {"plan": "startup"})
    assert filtered.context["cl"].result_list == [alice.tenant]
