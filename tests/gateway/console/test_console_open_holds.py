"""The open holds that the admin console lists are those that Redis has."""

import msgspec
import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing import registers
from billing.holding import open_holds as hold_queries
from billing.holding.holds import SpendScope
from tests.billing import desk as desks
from tests.billing.desk import Desk
from tests.people import Person


@pytest.fixture
def operator(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_an_open_hold_is_read_with_what_was_delivered(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given a hold as the scripts write it, and a lease whose hold is settled already
    tag = registers.shard_tag(alice.tenant.pk)
    now_ms = int(timezone.now().timestamp()) * 1000
    redis_client.zadd(registers.leases_key(tag), {"open-one": now_ms, "settled": now_ms + 1})
    redis_client.hset(
        registers.hold_key(tag, "open-one"),
        mapping={
            "state": "open",
            "tenant": registers.tenant_key(tag, alice.tenant.pk),
            "hold": 1_500,
            "charge": 20,
            "deadline": now_ms + 60_000,
            "event": msgspec.json.encode({"sku": "acme/small"}),
        },
    )
    redis_client.hset(registers.hold_key(tag, "settled"), mapping={"state": "settled"})

    # when
    found = hold_queries.open_holds(redis_client)

    # then
    (hold,) = found.shown
    assert found.count == 2
    assert (hold.tenant_id, hold.sku) == (alice.tenant.pk, "acme/small")
    assert (hold.hold_pico, hold.charged_pico) == (1_500_000, 20_000)
    assert (hold.deadline - hold.lease_ends).total_seconds() == 60


def test_a_hold_is_explained_by_its_budgets_and_its_ceiling(
    operator: Client, redis_client: redis.Redis
) -> None:
    # given an expected hold of a session, as the scripts write it
    desk = Desk(client=redis_client)
    desks.warm(redis_client, tenant=desk.tenant, credit_nano=10**9)
    desk.spend = (
        SpendScope("model", registers.scope_part("acme/fox: 7"), "week", 10**9),
        SpendScope("session", registers.session_of(desk.tenant, "agent"), "session", 10**9),
    )
    desk.place(hold_nano=1_000, ceiling_nano=9_000, overdraft=500)

    # when
    (hold,) = hold_queries.open_holds(redis_client).shown
    page = operator.get("/admin/billing/tenant/open-holds/").content.decode()

    # then
    assert (hold.hold_pico, hold.ceiling_pico) == (1_000_000, 9_000_000)
    assert hold.budgets == ("model acme/fox: 7 per week", "session")
    assert "model acme/fox: 7 per week, session" in page
