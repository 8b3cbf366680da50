"""A management key at its cap makes another key, and that one another: none of them spends on."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from billing.models import Quota, RateLimit
from billing.money import pico_from_usd
from gateway.models import ApiKey, Team
from gateway.tenants import keys
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import Caller, World, add_offer, add_provider, question
from tests.patience import PATIENCE_S

PICO = 10**12


def catalogue(upstream: FakeUpstream) -> None:
    pool = add_provider("pool", upstream.url)
    add_offer(provider=pool, model="fox", upstream_model="good")
    add_offer(provider=pool, model="hare", upstream_model="good")


@pytest.fixture
def maker(the_world: World) -> Caller:
    """A key that manages and calls."""
    caller = the_world.caller()
    ApiKey.objects.filter(pk=caller.key.pk).update(scopes=sorted(keys.SCOPES), team=None)
    caller.key.refresh_from_db()
    return caller


def address(caller: Caller, rest: str) -> str:
    return f"/api/v1/tenants/{caller.tenant.slug}/{rest}"


def made_by(caller: Caller, **terms: Any) -> Caller:
    """A key that this key makes through the management API; it may make keys itself."""
    body = {"name": "next", "scopes": sorted(keys.SCOPES), **terms}
    answer = Client().post(
        address(caller, "keys/"), body, content_type="application/json", headers=caller.headers
    )
    assert answer.status_code == 201, answer.content
    found = answer.json()
    return replace(caller, key=ApiKey.objects.get(pk=found["id"]), plain=found["secret"])


def cap(caller: Caller, limit_pico: int, window: str = "lifetime") -> Quota:
    return Quota.objects.create(
        tenant=caller.tenant,
        scope_kind="key",
        scope_id=str(caller.key.pk),
        window=window,
        limit_pico=limit_pico,
    )


@pytest.mark.parametrize("window", ["lifetime", "day", "week", "month"])
def test_a_made_key_is_bound_by_its_makers_cap(
    window: str, the_world: World, maker: Caller
) -> None:
    # given a cap that is full
    cap(maker, 1, window)
    child = made_by(maker)
    grandchild = made_by(child)
    the_world.reload_snapshot()
    calls = len(the_world.upstream.calls("good"))

    # when
    answers = [the_world.chat(each, "fox") for each in (maker, child, grandchild)]

    # then
    assert [answer.status_code for answer in answers] == [402, 402, 402]
    assert the_world.register(maker) == {"credit": 10**9, "spent": 0, "held": 0}
    assert len(the_world.upstream.calls("good")) == calls
    assert the_world.events(maker) == []


def test_a_raise_of_the_maker_reaches_what_it_made(the_world: World, maker: Caller) -> None:
    # given
    quota = cap(maker, 1)
    child = made_by(maker)
    the_world.reload_snapshot()
    assert the_world.chat(child, "fox").status_code == 402
    # when
    quota.raised_pico, quota.raised_until = PICO, timezone.now() + timedelta(hours=1)
    quota.save()
    the_world.reload_snapshot()
    # then
    assert the_world.chat(child, "fox").status_code == 200


def test_what_the_made_key_spends_is_spent_of_its_maker(the_world: World, maker: Caller) -> None:
    # given a cap that one call's hold fills
    asked = httpx.post(
        f"{the_world.plane.url}/v1/quote",
        json=question("fox"),
        headers=maker.headers,
        timeout=PATIENCE_S,
    )
    cap(maker, pico_from_usd(str(json.loads(asked.text, parse_float=Decimal)["hold_usd"])))
    child = made_by(maker)
    the_world.reload_snapshot()
    # when
    first = the_world.chat(child, "fox")
    the_world.settled(maker)
    second = the_world.chat(maker, "fox")
    # then
    assert (first.status_code, second.status_code) == (200, 402)


def test_rates_are_shared_with_what_was_made(the_world: World, maker: Caller) -> None:
    # given
    RateLimit.objects.create(tenant=maker.tenant, scope_kind="key", scope_id=maker.key.pk, rpm=2)
    child, sibling = made_by(maker), made_by(maker)
    the_world.reload_snapshot()
    # then
    said = [the_world.chat(each, "fox").status_code for each in (child, sibling, child, maker)]
    assert said == [200, 200, 429, 429]


def test_a_session_cap_binds_what_was_made(the_world: World, maker: Caller) -> None:
    # given
    Quota.objects.create(
        tenant=maker.tenant,
        scope_kind="session",
        scope_id=str(maker.tenant.pk),
        window="session",
        limit_pico=1,
    )
    child = made_by(maker)
    the_world.reload_snapshot()
    # then
    assert the_world.chat(child, "fox", session_id="s1").status_code == 402


def test_a_key_of_a_team_makes_keys_of_that_team(the_world: World, maker: Caller) -> None:
    # given
    ApiKey.objects.filter(pk=maker.key.pk).update(team=maker.team)
    Team.objects.create(tenant=maker.tenant, slug="rich", name="Rich")
    before = ApiKey.objects.count()
    # when
    refused = Client().post(
        address(maker, "keys/"),
        {"name": "away", "team": "rich"},
        content_type="application/json",
        headers=maker.headers,
    )
    # then
    assert (refused.status_code, refused.json()["code"]) == (422, "beyond_its_maker")
    assert ApiKey.objects.count() == before
    assert made_by(maker).key.team_id == maker.team.pk


def test_models_pass_from_maker_to_made(the_world: World, maker: Caller) -> None:
    # given
    ApiKey.objects.filter(pk=maker.key.pk).update(models_allowed=["hare"])
    maker.key.refresh_from_db()
    before = ApiKey.objects.count()
    # when
    refused = Client().post(
        address(maker, "keys/"),
        {"name": "away", "models_allowed": ["fox"]},
        content_type="application/json",
        headers=maker.headers,
    )
    # then
    assert (refused.status_code, refused.json()["code"]) == (422, "beyond_its_maker")
    assert ApiKey.objects.count() == before
    child = made_by(maker)
    assert child.key.models_allowed == ["hare"]
    assert the_world.chat(child, "fox").status_code in (403, 404)


@pytest.mark.parametrize("by", ["the maker", "what it made"])
def test_no_key_loosens_what_binds_it(by: str, the_world: World, maker: Caller) -> None:
    # given
    quota = cap(maker, 1_000_000)
    RateLimit.objects.create(tenant=maker.tenant, scope_kind="key", scope_id=maker.key.pk, rpm=2)
    caller = maker if by == "the maker" else made_by(maker)
    scope = {"scope_kind": "key", "scope": str(maker.key.pk)}
    client, kind = Client(), {"content_type": "application/json", "headers": caller.headers}
    until = (timezone.now() + timedelta(days=1)).isoformat()
    # when
    answers = [
        client.delete(address(maker, f"quotas/{quota.pk}/"), headers=caller.headers),
        client.post(
            address(maker, f"quotas/{quota.pk}/raise/"),
            {"limit_usd": "5", "until": until},
            **kind,
        ),
        client.put(address(maker, "rate-limits/"), {**scope, "rpm": 3}, **kind),
        client.put(address(maker, "rate-limits/"), scope, **kind),
    ]
    # then
    assert [answer.status_code for answer in answers] == [422] * 4
    assert all("does not loosen" in answer.json()["detail"] for answer in answers)
    quota.refresh_from_db()
    assert (quota.limit_pico, quota.raised_pico) == (1_000_000, None)
    assert RateLimit.objects.get(tenant=maker.tenant).rpm == 2


def test_the_key_page_says_the_tightest_of_the_line(the_world: World, maker: Caller) -> None:
    # given
    cap(maker, PICO // 100)
    child = made_by(maker)
    cap(child, PICO)
    the_world.reload_snapshot()
    # when
    said = httpx.get(
        f"{the_world.plane.url}/v1/key", headers=child.headers, timeout=PATIENCE_S
    ).json()["data"]
    # then
    assert (said["limit"], said["limit_remaining"], said["usage"]) == (0.01, 0.01, 0)
