"""A tenant's terms: by an operator in the admin console and over REST, by the tenant as far as the
house allows."""

from typing import Any

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from billing import hold_modes, price_lists, rebuild
from billing.models import AlertChannel, AuditEntry, PriceList, Tenant
from gateway import keys
from providers.snapshot_signal import VERSION_KEY
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
    assert not Tenant.objects.exclude(plan=None).exists()

    # and when it is confirmed
    confirmed = asked | {"_confirm": "1", "plan": plan.pk, "reason": "signed"}
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(page, confirmed)

    # then both pay its prices, it is written down why, and the data plane is told
    assert Tenant.objects.filter(plan=plan).count() == 2
    assert price_lists.lists_by_tenant([alice.tenant.pk]) == {alice.tenant.pk: (plan.pk,)}
    noted = AuditEntry.objects.get(action="tenant.plan", tenant=alice.tenant)
    assert (noted.actor, noted.reason, noted.after) == ("admin", "signed", {"plan": "startup"})
    assert redis_client.get(VERSION_KEY) is not None


def test_a_tenant_s_own_price_list_is_no_plan(admin_client: Client, alice: Person) -> None:
    own = PriceList.objects.create(kind="tenant", tenant=alice.tenant, slug="own", name="Own")
    asked = {"action": "put_on_plan", "_selected_action": [alice.tenant.pk]}
    asked |= {"_confirm": "1", "plan": own.pk, "reason": "slip"}

    answer = admin_client.post("/admin/billing/tenant/", asked)

    assert answer.status_code == 200
    assert Tenant.objects.get(pk=alice.tenant.pk).plan is None


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
    expected |= {"second_factor_demanded": False}
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
