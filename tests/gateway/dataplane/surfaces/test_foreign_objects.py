"""Every action with somebody else's object: another tenant's, below one's own slug and on pages,
in the address and in the body; and another team's. All refused, none answered 500, nothing moved.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console.urls import urlpatterns
from gateway.models import ApiKey, Member
from gateway.tenants import keys, sellers
from providers.models import Provider
from tests.gateway import belongings
from tests.gateway.belongings import Belongings
from tests.gateway.console_rows import Priced, offer
from tests.people import Person

ROLES = ("owner", "admin", "developer", "viewer")
CALLERS = (*ROLES, "management key")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
# What an address may name that is a tenant's own.
OWNED = re.compile(
    r"<\w+:(key_id|quota_id|channel_id|member_id|invitation_id|request_id|invoice_id|note_id"
    r"|receipt_id|refund_id|number|team)>"
)
REFUSED = (400, 403, 404, 405, 422)
# Written by looking alone, or by a clock.
RESTLESS = ("IdempotentCall", "TaskRun", "InvariantCheck")


@dataclass(frozen=True)
class Two:
    """Alice's tenant, in which somebody acts, and Charlie's."""

    own: Belongings
    foreign: Belongings
    redis: "redis.Redis"


@pytest.fixture
def two(alice: Person, charlie: Person, redis_client: redis.Redis) -> Two:
    sold = offer()
    use = {"input_tokens": 50_000_000}
    made = [belongings.make(person, sold, redis_client, **use) for person in (alice, charlie)]
    for things, provider in zip(made, ("zeta", "yota"), strict=True):
        _sells(things, offer(provider, "large"))
    return Two(*made, redis=redis_client)


def _sells(things: Belongings, sold: Priced) -> None:
    provider = Provider.objects.get(pk=sold.offer.provider_id)
    sellers.register(
        team=things.other_team, provider=provider, house_share_ppm=0, actor="op", now=timezone.now()
    )


def caller_of(who: str, two: Two) -> tuple[Client, dict[str, str]]:
    """Somebody in the main team of Alice's tenant, or a key of that tenant."""
    client, person = Client(), two.own.person
    if who == "management key":
        made = keys.issue(
            tenant=person.tenant,
            name="all",
            created_by="alice",
            now=timezone.now(),
            scopes=keys.SCOPES,
        )
        return client, {"Authorization": f"Bearer {made.plain}"}
    user = User.objects.create_user(f"a {who}")
    Member.objects.create(user=user, tenant=person.tenant, team=person.team, role=who)
    client.force_login(user)
    return client, {}


def everything(two: Two) -> dict[str, Any]:
    """All rows of all tables of ours, and what Redis knows of caps and keys."""
    found: dict[str, Any] = {}
    for app in ("billing", "gateway", "providers"):
        for model in apps.get_app_config(app).get_models():
            if model.__name__ not in RESTLESS:
                rows = model._default_manager.order_by("pk").values_list()
                found[model._meta.label] = [tuple(map(_plain, row)) for row in rows]
    found["registers"] = sorted(two.redis.scan_iter("spend:*"))
    found["statuses"] = {key: two.redis.hgetall(key) for key in two.redis.scan_iter("keys:*")}
    return found


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else repr(value)


def assert_nothing_moved(before: dict[str, Any], two: Two) -> None:
    after = everything(two)
    assert {name for name in after if after[name] != before[name]} == set()


def call(
    client: Client, method: str, path: str, headers: dict[str, str], body: Any = None
) -> HttpResponse:
    is_api = path.startswith("/api/")
    if is_api or method == "GET":
        answer: HttpResponse = client.generic(
            method,
            path,
            _json(body or {}) if method != "GET" else "",
            content_type=JSON,
            headers=headers,
        )
    else:
        answer = client.post(path, body or {}, headers=headers)
    return answer


def _json(body: Any) -> str:
    return json.dumps(body)


# All that any of these calls asks for: none is refused for a body alone.
BODY = {
    "name": "taken over",
    "role": "viewer",
    "team": "",
    "cost_centre": "taken over",
    "limit_usd": "4000000",
    "until": (timezone.now() + timedelta(days=1)).isoformat(),
    "days": "1",
    "reason": "taken over",
}


def naming_foreign_things(two: Two) -> Iterator[tuple[str, str]]:
    """Every address that names an object, with Charlie's in the place of one's own, and with
    numbers beyond all bounds."""
    own_slug = {"tenant": two.own.ids["tenant"]}
    foreign = {**two.foreign.ids, **own_slug, "team": two.foreign.other_team.slug}
    beyond = {name: "9" * 30 for name in foreign if name.endswith("_id") and name != "request_id"}
    for prefix, patterns in (("/", urlpatterns), ("/api/", api_urlpatterns)):
        for route in belongings.routes_of(patterns):
            if OWNED.search(route):
                for ids in (foreign, {**foreign, **beyond}):
                    path = prefix + two.foreign.address(route, **ids)
                    yield from ((method, path) for method in METHODS)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("who", CALLERS)
def test_no_address_with_a_foreign_object_does_anything(who: str, two: Two) -> None:
    # given
    client, headers = caller_of(who, two)
    before = everything(two)
    asked = list(naming_foreign_things(two))

    # when
    answers = [(case, call(client, *case, headers, BODY)) for case in asked]

    # then
    assert len(asked) >= 2 * 21 * len(METHODS)
    for (method, path), answer in answers:
        assert answer.status_code in (*REFUSED, 302, 401), (method, path, answer.status_code)
        if method == "GET" and who in ROLES:
            assert answer.status_code in (403, 404, 405), (path, answer.status_code)
    assert_nothing_moved(before, two)


def bodies_with_foreign_things(two: Two) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every call whose body, or query, can name an object."""
    own, other = two.own, two.foreign
    base = f"/api/v1/tenants/{own.ids['tenant']}"
    team, key, tenant = other.other_team, other.key, other.person.tenant
    colleague = own.ids["member_id"]
    scopes = (("key", str(key.pk)), ("team", team.slug), ("tenant", tenant.slug))
    for kind, scope in (*scopes, ("session", tenant.slug), ("key", "0"), ("key", "9" * 30)):
        cap = {"scope_kind": kind, "scope": scope, "limit_usd": "1"}
        window = "session" if kind == "session" else "month"
        yield "PUT", f"{base}/quotas/", {**cap, "window": window}
        yield "PUT", f"{base}/rate-limits/", {"scope_kind": kind, "scope": scope, "rpm": 1}
    yield "POST", f"{base}/keys/", {"name": "x", "team": team.slug}
    yield "PUT", f"{base}/members/{colleague}/", {"role": "viewer", "team": team.slug}
    yield "PUT", f"{base}/routing-policy/?team={team.slug}", {"kind": "fastest"}
    yield "GET", f"{base}/routing-policy/?team={team.slug}", {}
    ids = (("key", key.pk), ("team", team.pk), ("tenant", tenant.pk), ("key", "9" * 30))
    for kind, scope_id in (*ids, ("session", tenant.pk)):
        window = "session" if kind == "session" else "month"
        cap = {"scope": f"{kind}:{scope_id}", "window": window, "limit_usd": "1"}
        yield "POST", "/budgets/quota/", cap
        yield "POST", "/budgets/rate-limit/", {"scope": f"{kind}:{scope_id}", "rpm": "1"}
    yield "POST", "/keys/new/", {"name": "x", "scopes": ["inference"], "team": team.pk}
    yield "POST", "/members/invite/", {"email": "x@y.example", "role": "viewer", "team": team.pk}
    yield "POST", f"/members/{colleague}/change/", {"role": "viewer", "team": team.pk}
    [seller] = team.sellers.all()
    ask = {"seller": seller.pk, "offer": seller.provider.offers.get().pk, "basis": "asking"}
    yield "POST", "/selling/ask/", {**ask, "input": "1", "output": "1"}
    yield "GET", f"/selling/?seller={seller.pk}", {}
    yield "GET", f"/selling/statement.csv?seller={seller.pk}", {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("who", CALLERS)
def test_no_body_with_a_foreign_object_does_anything(who: str, two: Two) -> None:
    # given
    client, headers = caller_of(who, two)
    before = everything(two)

    # when
    answers = [
        (method, path, body, call(client, method, path, headers, body))
        for method, path, body in bodies_with_foreign_things(two)
    ]

    # then
    for method, path, body, answer in answers:
        assert answer.status_code in (*REFUSED, 302, 401), (method, path, body, answer.content)
    assert_nothing_moved(before, two)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("who", ROLES)
def test_what_is_listed_and_filtered_is_ones_own(who: str, two: Two) -> None:
    client, headers = caller_of(who, two)
    key = two.foreign.key

    page = client.get(f"/requests/?key={key.pk}")
    client.post("/tenant/", {"tenant": two.foreign.person.tenant.pk})

    assert page.context["page"].rows == []
    assert client.get("/keys/").context["member"].tenant == two.own.person.tenant
    assert key.public_id not in client.get("/keys/").text


# --- teams of one tenant: who may touch which key ---------------------------------------------

MINE, OTHERS, MANAGING = "own team's", "other team's", "own team's, managing"
# Written down here once more, apart from the rule in the code.
TOUCHES = {
    "owner": {MINE, OTHERS, MANAGING},
    "admin": {MINE, OTHERS, MANAGING},
    "developer": {MINE},
    "viewer": set(),
}


def key_of(two: Two, whose: str) -> ApiKey:
    team = two.own.other_team if whose == OTHERS else two.own.person.team
    return keys.issue(
        tenant=two.own.person.tenant,
        team=team,
        name=whose,
        created_by="alice",
        now=timezone.now(),
        scopes=keys.SCOPES if whose == MANAGING else (keys.INFERENCE,),
    ).key


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("through", ["page", "REST"])
@pytest.mark.parametrize("whose", [MINE, OTHERS, MANAGING])
@pytest.mark.parametrize("who", ROLES)
def test_a_key_is_revoked_by_whom_the_rule_says(
    who: str, whose: str, through: str, two: Two
) -> None:
    # given
    client, headers = caller_of(who, two)
    key = key_of(two, whose)
    before = everything(two)

    # when
    if through == "page":
        answer = call(client, "POST", f"/keys/{key.pk}/revoke/", headers)
    else:
        path = f"/api/v1/tenants/{two.own.ids['tenant']}/keys/{key.pk}/"
        answer = call(client, "DELETE", path, headers)

    # then
    key.refresh_from_db()
    if whose in TOUCHES[who]:
        assert answer.status_code in (200, 302)
        assert key.revoked_at is not None
    else:
        assert answer.status_code == 403
        assert_nothing_moved(before, two)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("through", ["page", "REST"])
@pytest.mark.parametrize("whose", [MINE, OTHERS, MANAGING])
@pytest.mark.parametrize("who", ROLES)
def test_a_key_is_made_by_whom_the_rule_says(who: str, whose: str, through: str, two: Two) -> None:
    # given
    client, headers = caller_of(who, two)
    team = two.own.other_team if whose == OTHERS else two.own.person.team
    scopes = list(keys.SCOPES) if whose == MANAGING else [keys.INFERENCE]
    before = everything(two)

    # when
    if through == "page":
        body: dict[str, Any] = {"name": "made", "scopes": scopes, "team": team.pk}
        answer = call(client, "POST", "/keys/new/", headers, body)
    else:
        path = f"/api/v1/tenants/{two.own.ids['tenant']}/keys/"
        body = {"name": "made", "scopes": scopes, "team": team.slug}
        answer = call(client, "POST", path, headers, body)

    # then
    if whose in TOUCHES[who]:
        assert answer.status_code == 201
        assert ApiKey.objects.get(name="made").team == team
    else:
        assert answer.status_code in (403, 422)
        assert_nothing_moved(before, two)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("who", ROLES)
def test_the_keys_page_offers_what_the_rule_allows(who: str, two: Two) -> None:
    # given
    client, _ = caller_of(who, two)
    found = {whose: key_of(two, whose) for whose in (MINE, OTHERS, MANAGING)}

    # when
    page = client.get("/keys/").text

    # then
    offered = {whose for whose, key in found.items() if f"/keys/{key.pk}/revoke/" in page}
    assert offered == TOUCHES[who]
    assert ('action="/keys/new/"' in page) == bool(TOUCHES[who])


@pytest.mark.django_db(transaction=True)
def test_a_developer_of_no_team_touches_what_is_no_teams(two: Two) -> None:
    # given
    client, headers = caller_of("developer", two)
    Member.objects.filter(user__username="a developer").update(team=None)
    base = f"/api/v1/tenants/{two.own.ids['tenant']}/keys/"

    # when
    into_a_team = call(client, "POST", base, headers, {"name": "x", "team": "main"})
    by_form = client.post(
        "/keys/new/", {"name": "x", "scopes": ["inference"], "team": two.own.person.team.pk}
    )
    teamless = call(client, "POST", base, headers, {"name": "mine"})

    # then
    assert (into_a_team.status_code, by_form.status_code) == (403, 422)
    assert teamless.status_code == 201
    assert ApiKey.objects.get(name="mine").team is None
