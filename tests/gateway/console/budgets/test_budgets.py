"""Budgets of every kind by the API and on the page: set, watched, raised, and who did it."""

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.models import AuditEntry, Quota
from billing.operations import rebuild
from gateway.models import Refusal
from gateway.tenants import keys
from tests.people import Person

QUOTAS = "/api/v1/tenants/aurora/quotas/"


@pytest.fixture
def headers(alice: Person, redis_client: redis.Redis) -> dict[str, str]:
    rebuild.rebuild(redis_client, alice.tenant.shard, now=timezone.now())
    issued = keys.issue(
        tenant=alice.tenant, name="ops", scopes=(keys.MANAGEMENT,), created_by="test",
        now=timezone.now(),
    )  # fmt: skip
    return {"Authorization": f"Bearer {issued.plain}"}


@pytest.fixture
def alice_client(alice: Person, client: Client, redis_client: redis.Redis) -> Client:
    rebuild.rebuild(redis_client, alice.tenant.shard, now=timezone.now())
    client.force_login(alice.user)
    return client


def put(client: Client, headers: dict[str, str], **body: Any) -> Any:
    stated = {"scope_kind": "tenant", "scope": "aurora", "window": "day", "limit_usd": "5", **body}
    return client.put(QUOTAS, stated, content_type="application/json", headers=headers)


@pytest.mark.parametrize(
    ("kind", "scope", "window"),
    [
        ("tenant", "aurora", "week"),
        ("team", "main", "month"),
        ("model", "openai/gpt-5: mini", "day"),
        ("provider", "in-house", "lifetime"),
        ("session", "aurora", "session"),
    ],
)
def test_every_kind_of_budget_is_set_and_listed(
    client: Client, headers: dict[str, str], kind: str, scope: str, window: str
) -> None:
    made = put(client, headers, scope_kind=kind, scope=scope, window=window)
    (listed,) = client.get(QUOTAS, headers=headers).json()
    assert made.status_code == 200, made.content
    assert listed == made.json()
    assert (listed["scope_kind"], listed["scope"], listed["window"]) == (kind, scope, window)


@pytest.mark.parametrize(
    "body",
    [
        {"window": "session"},
        {"scope_kind": "session", "window": "day"},
        {"scope_kind": "session", "window": "session", "shadow": True},
        {"scope_kind": "model", "scope": "a\u0000b"},
        {"scope_kind": "model", "scope": ""},
        {"scope_kind": "planet", "scope": "mars"},
        {"scope": "borealis"},
        {"limit_usd": "-1"},
        {"limit_usd": "NaN"},
        {"limit_usd": "٥"},
        {"limit_usd": 5},
    ],
)
def test_what_is_no_budget_changes_nothing(
    client: Client, headers: dict[str, str], body: dict[str, Any]
) -> None:
    answer = put(client, headers, **body)
    assert 400 <= answer.status_code < 500
    assert not Quota.objects.exists()
    assert not AuditEntry.objects.filter(action="quota.set").exists()


def test_a_raise_has_an_end_and_an_author(client: Client, headers: dict[str, str]) -> None:
    # given
    made = put(client, headers).json()
    until = timezone.now() + timedelta(days=2)
    asked = {"limit_usd": "9", "until": until.isoformat(), "reason": "a launch"}
    # when
    path = f"{QUOTAS}{made['id']}/raise/"
    answer = client.post(path, asked, content_type="application/json", headers=headers)
    lower = client.post(
        path, {**asked, "limit_usd": "4"}, content_type="application/json", headers=headers
    )
    past = client.post(
        path, {**asked, "until": "2020-01-01T00:00:00Z"}, content_type="application/json",
        headers=headers,
    )  # fmt: skip
    # then
    assert (answer.json()["limit_usd"], answer.json()["raised_usd"]) == ("5", "9")
    assert [lower.status_code, past.status_code] == [422, 422]
    quota = Quota.objects.get()
    assert quota.limit_at(timezone.now()) == 9 * 10**12
    assert quota.limit_at(until) == 5 * 10**12
    entry = AuditEntry.objects.get(action="quota.raise")
    assert (entry.reason, entry.after["raised_pico"]) == ("a launch", 9 * 10**12)
    assert entry.actor.startswith("key ")


def test_a_budget_of_another_tenant_is_not_raised(
    client: Client, headers: dict[str, str], charlie: Person
) -> None:
    theirs = Quota.objects.create(
        tenant=charlie.tenant, scope_kind="tenant", scope_id=str(charlie.tenant.pk),
        window="day", limit_pico=1,
    )  # fmt: skip
    asked = {"limit_usd": "9", "until": (timezone.now() + timedelta(days=1)).isoformat()}
    answer = client.post(
        f"{QUOTAS}{theirs.pk}/raise/", asked, content_type="application/json", headers=headers
    )
    assert answer.status_code == 404
    theirs.refresh_from_db()
    assert theirs.raised_until is None


def test_the_page_sets_raises_and_tells_who_did(alice: Person, alice_client: Client) -> None:
    # when
    alice_client.post(
        "/budgets/quota/",
        {"scope": "model:", "name": "fox", "window": "week", "limit_usd": "5", "shadow": "on"},
    )
    quota = Quota.objects.get()
    alice_client.post(
        f"/budgets/quota/{quota.pk}/raise/", {"limit_usd": "7", "days": "3", "reason": "launch"}
    )
    # then
    page = alice_client.get("/budgets/").content.decode()
    assert (quota.scope_kind, quota.scope_id, quota.shadow) == ("model", "fox", True)
    for words in ("Model fox", "only watched", "raised until", "quota.raise", "launch"):
        assert words in page, words
    assert alice.user.username in page


def test_a_model_s_budget_needs_its_model(alice_client: Client) -> None:
    answer = alice_client.post(
        "/budgets/quota/", {"scope": "model:", "window": "day", "limit_usd": "5"}
    )
    assert answer.status_code == 422
    assert not Quota.objects.exists()


def test_what_would_have_been_refused_is_listed_apart_from_refusals(
    alice: Person, alice_client: Client
) -> None:
    # given
    Refusal.objects.create(
        request_id="0195f0a0-0000-7000-8000-000000000001", tenant=alice.tenant, model="fox",
        status=402, code="would_refuse", message="Served. The watched limit was full.",
        occurred_at=timezone.now(),
    )  # fmt: skip
    # when
    budgets = alice_client.get("/budgets/").content.decode()
    requests = alice_client.get("/requests/").content.decode()
    # then
    assert "Would have been refused" in budgets
    assert "The watched limit was full" in budgets
    assert "would refuse" not in requests
