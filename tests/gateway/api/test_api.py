"""The management API by key and by session: what it makes, shows and refuses."""

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.credit import balances as credit
from billing.models import Quota
from gateway.models import ApiKey, IdempotentCall, RoutingPolicy
from gateway.tenants import keys
from providers.machines import workers
from providers.models import Worker
from tests.people import Person
from tests.providers.made_offers import make_offer, publish, registration, worker_key

TENANT = "/api/v1/tenants/aurora"


def _management(person: Person, *scopes: str) -> dict[str, str]:
    issued = keys.issue(
        tenant=person.tenant,
        name="ops",
        scopes=scopes or (keys.MANAGEMENT,),
        created_by="test",
        now=timezone.now(),
    )
    return {"Authorization": f"Bearer {issued.plain}"}


def _post(client: Client, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    return client.post(path, body, content_type="application/json", headers=headers)


def _put(client: Client, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    return client.put(path, body, content_type="application/json", headers=headers)


def test_a_key_is_made_shown_once_and_revoked(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    headers = _management(alice)

    # when
    made = _post(client, f"{TENANT}/keys/", {"name": "CI", "team": "main"}, headers)
    listed = client.get(f"{TENANT}/keys/", headers=headers).json()
    one = f"{TENANT}/keys/{made.json()['id']}/"
    revoked = client.delete(one, headers=headers)

    # then
    assert made.status_code == 201
    assert keys.find(made.json()["secret"]) == ApiKey.objects.get(name="CI")
    assert [key["name"] for key in listed] == ["CI", "ops"]
    assert all("secret" not in key for key in listed)
    assert revoked.json()["revoked_at"] is not None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid"),
        ({"name": "CI", "scopes": ["root"]}, 400, "invalid"),
        ({"name": "CI", "expires_at": "2020-01-01T00:00:00Z"}, 422, "refused"),
        ({"name": "CI", "team": "nobody"}, 404, "not_found"),
        ("[", 400, "parse_error"),
    ],
)
def test_a_bad_key_is_refused_with_a_problem(
    body: Any, status: int, code: str, client: Client, alice: Person
) -> None:
    # when
    answer = _post(client, f"{TENANT}/keys/", body, _management(alice))

    # then
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["content-type"] == "application/problem+json"
    assert ApiKey.objects.count() == 1


def test_a_key_without_the_scope_is_forbidden(client: Client, alice: Person) -> None:
    # when
    answer = client.get(f"{TENANT}/keys/", headers=_management(alice, keys.INFERENCE))

    # then
    assert answer.status_code == 403
    assert "management" in answer.json()["detail"]


def test_a_revoked_key_is_told_so(client: Client, alice: Person, redis_client: redis.Redis) -> None:
    # given
    headers = _management(alice)
    keys.revoke(key=ApiKey.objects.get(), actor="alice", now=timezone.now())

    # when
    answer = client.get("/api/v1/tenants/", headers=headers)

    # then
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"


def test_a_developer_makes_keys_of_the_own_team_and_sets_nothing(
    client: Client, bob: Person, redis_client: redis.Redis
) -> None:
    # given
    client.force_login(bob.user)

    # when
    read = client.get(f"{TENANT}/keys/")
    limited = _put(client, f"{TENANT}/rate-limits/", {"scope_kind": "tenant", "scope": "aurora"})
    made = _post(client, f"{TENANT}/keys/", {"name": "CI"})

    # then
    assert (read.status_code, limited.status_code, made.status_code) == (200, 403, 201)
    assert ApiKey.objects.get().team == bob.team


def test_a_session_needs_a_csrf_token_to_write(alice: Person) -> None:
    # given
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice.user)

    # when
    answer = _post(client, f"{TENANT}/teams/", {"slug": "new", "name": "New"})

    # then
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]


def test_a_balance_is_exact(client: Client, alice: Person, redis_client: redis.Redis) -> None:
    # given
    credit.grant(tenant=alice.tenant, amount_pico=1, reason="test", created_by="test")

    # when
    answer = client.get(f"{TENANT}/balance/", headers=_management(alice))

    # then
    assert answer.json() == {
        "credit_usd": "0.000000000001",
        "spent_usd": "0",
        "held_usd": "0",
        "left_usd": "0.000000000001",
    }


def test_rate_limits_and_policy_are_set_and_read(client: Client, alice: Person) -> None:
    # given
    headers = _management(alice)
    make_offer("acme/small")
    limit = {"scope_kind": "team", "scope": "main", "rpm": 60, "tpm": None, "concurrency": 4}
    pinned = {"kind": "pinned", "pinned_skus": ["acme/small"]}

    # when
    _put(client, f"{TENANT}/rate-limits/", limit, headers)
    _put(client, f"{TENANT}/routing-policy/", pinned, headers)

    # then
    assert client.get(f"{TENANT}/rate-limits/", headers=headers).json() == [limit]
    policy = client.get(f"{TENANT}/routing-policy/", headers=headers).json()
    assert (policy["kind"], policy["pinned_skus"]) == ("pinned", ["acme/small"])
    unknown = _put(client, f"{TENANT}/routing-policy/", {"providers_allowed": ["x"]}, headers)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "refused")
    assert RoutingPolicy.objects.count() == 1


@pytest.mark.parametrize("limit", [12.5, "1e3000", "-1", "0.0000000000001", "many", None])
def test_a_budget_that_is_no_exact_amount_is_refused(
    limit: Any, client: Client, alice: Person
) -> None:
    # given
    body = {"scope_kind": "tenant", "scope": "aurora", "window": "day", "limit_usd": limit}

    # when
    answer = _put(client, f"{TENANT}/quotas/", body, _management(alice))

    # then
    assert answer.status_code in (400, 422)
    assert not Quota.objects.exists()


def test_a_budget_while_the_shard_is_cold_is_unavailable(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    body = {"scope_kind": "tenant", "scope": "aurora", "window": "day", "limit_usd": "5"}

    # when
    answer = _put(client, f"{TENANT}/quotas/", body, _management(alice))

    # then
    assert answer.status_code == 503
    assert answer["Retry-After"] == "2"
    assert not Quota.objects.exists()


def test_a_limit_of_another_tenants_team_is_not_found(
    client: Client, alice: Person, charlie: Person
) -> None:
    # given
    other = keys.issue(
        tenant=charlie.tenant, name="theirs", created_by="test", now=timezone.now()
    ).key
    bodies = [
        {"scope_kind": "key", "scope": str(other.pk), "rpm": 1},
        {"scope_kind": "tenant", "scope": charlie.tenant.slug, "rpm": 1},
    ]

    # when
    headers = _management(alice)
    answers = [_put(client, f"{TENANT}/rate-limits/", body, headers) for body in bodies]

    # then
    assert [answer.status_code for answer in answers] == [404, 404]


def test_usage_of_a_quiet_tenant_is_zero(client: Client, alice: Person) -> None:
    # when
    headers = _management(alice)
    usage = client.get(f"{TENANT}/usage/", headers=headers).json()
    requests = client.get(f"{TENANT}/requests/?limit=5", headers=headers).json()
    bad = client.get(f"{TENANT}/requests/?limit=5000", headers=headers)

    # then
    assert usage["totals"]["cost_usd"] == "0"
    assert requests == {"requests": []}
    assert bad.status_code == 400


def test_the_boards_are_public(client: Client, db: None, redis_client: redis.Redis) -> None:
    # given
    offer = make_offer("acme/small")
    publish(offer.sku, ("0.10", "0.05", "0.40"), since=timezone.now())

    # when
    home = client.get("/api/v1/leaderboards/").json()["models"]
    board = client.get("/api/v1/leaderboards/small/?window=1h").json()
    history = client.get("/api/v1/leaderboards/small/prices/").json()["series"]

    # then
    assert [row["model"] for row in home] == ["small"]
    assert board["rows"][0]["effective"]["pico"] == 700_000
    assert [series["steps"][0][1] for series in history] == [400_000]
    assert client.get("/api/v1/leaderboards/none/").status_code == 404
    assert client.get("/api/v1/leaderboards/small/?window=2y").status_code == 404


def test_price_versions_are_exact_and_public(
    client: Client, db: None, redis_client: redis.Redis
) -> None:
    # given
    publish(make_offer("acme/small").sku, ("0.0375", "0.01", "0.40"))

    # when
    listed = client.get("/api/v1/prices/?sku=acme/small").json()

    # then
    (version,) = listed["versions"]
    assert version["usd_per_million"]["input"] == "0.0375"
    assert version["usd_per_million"]["input_audio"] is None
    assert (version["service_tier"], version["valid_to"]) == ("default", None)
    assert version["hours_utc"] is None
    assert client.get("/api/v1/prices/").status_code == 404


def _registration() -> dict[str, Any]:
    stated = registration()
    fields = {name: getattr(stated, name) for name in stated.__slots__}
    return fields | {"usd_per_hour": "0.36", "techniques": list(stated.techniques)}


def test_a_worker_registers_and_lives(client: Client, db: None, redis_client: redis.Redis) -> None:
    # given
    headers = {"Authorization": f"Bearer {worker_key()[1]}"}

    # when
    made = _post(client, "/api/workers/register", _registration(), headers)
    beat = {
        "worker_id": made.json()["worker_id"],
        "running": 1,
        "waiting": 0,
        "kv_cache_usage": 0.25,
        "totals": {"output_tokens": 10, "uptime_s": 3.5},
        "gaps": {"alone": {"p95_ms": 4.5, "n": 120}},
    }
    lives = _post(client, "/api/workers/heartbeat", beat, headers)
    unknown = _post(client, "/api/workers/heartbeat", beat | {"worker_id": 10**6}, headers)
    absurd = beat | {"gaps": {"full": {"p95_ms": -1, "n": 1}}}
    refused = _post(client, "/api/workers/heartbeat", absurd, headers)

    # then
    assert refused.status_code == 400
    assert Worker.objects.get().load["gaps"] == beat["gaps"]
    assert (made.status_code, lives.status_code, unknown.status_code) == (200, 200, 404)
    assert made.json()["heartbeat_seconds"] == 5
    assert made.json()["sku"] == "in-house/smollm2-135m-instruct/plain"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"base_url": "http://10.0.0.1:8101"}, 422),
        ({"calibration": {}}, 422),
        ({"usd_per_hour": "NaN"}, 400),
        ({"context_length": -1}, 400),
        ({"techniques": "all"}, 400),
        ({"costs": "none"}, 400),
        ({"costs": {"weight_bytes": -1}}, 400),
        ({"costs": {"draft_bytes": 10**16}}, 400),
        ({"costs": {"calibrated": {"steps": 0}}}, 400),
        ({"costs": {"gaps": {"full": {"p95_ms": "soon", "n": 50}}}}, 400),
        ({"costs": {"gaps": {"alone": {"p95_ms": 4.0}}}}, 400),
    ],
)
def test_a_bad_registration_makes_nothing(
    changed: dict[str, Any], status: int, client: Client, db: None
) -> None:
    # given
    headers = {"Authorization": f"Bearer {worker_key()[1]}"}

    # when
    answer = _post(client, "/api/workers/register", _registration() | changed, headers)

    # then
    assert answer.status_code == status
    assert client.get("/api/v1/leaderboards/smollm2-135m-instruct/").status_code == 404


@pytest.mark.django_db
def test_a_worker_key_for_other_models_is_told_which(client: Client) -> None:
    # given
    _, plain = workers.issue_key(
        label="lab",
        allowed_network="127.0.0.0/8",
        models_allowed=["fox-1", "fox-2"],
        created_by="op",
        now=timezone.now(),
    )
    headers = {"Authorization": f"Bearer {plain}"}

    # when
    answer = _post(client, "/api/workers/register", _registration(), headers)

    # then
    assert (answer.status_code, answer["content-type"]) == (403, "application/problem+json")
    assert answer.json()["detail"].startswith("this worker key sells fox-1, fox-2, not ")
    assert not Worker.objects.exists()


@pytest.mark.parametrize("key", ["", "Bearer wk-nobody-nothing", "Bearer tk-x-y"])
def test_without_a_worker_key_nobody_registers(key: str, client: Client, db: None) -> None:
    # when
    answer = _post(client, "/api/workers/register", _registration(), {"Authorization": key})

    # then
    assert answer.status_code == 401


def test_a_write_with_an_idempotency_key_happens_once(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    headers = {**_management(alice), "Idempotency-Key": "deploy-42"}
    path = f"{TENANT}/keys/"
    # when
    first = _post(client, path, {"name": "CI"}, headers)
    again = _post(client, path, {"name": "CI"}, headers)
    other = _post(client, path, {"name": "CD"}, headers)
    refused = _post(client, path, {"name": ""}, {**headers, "Idempotency-Key": "other"})
    mended = _post(client, path, {"name": "CD"}, {**headers, "Idempotency-Key": "other"})
    # then
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (refused.status_code, mended.status_code) == (400, 201)
    assert ApiKey.objects.filter(name="CI").count() == 1
    stored = b"".join(bytes(call.body) for call in IdempotentCall.objects.all())
    assert first.json()["secret"].encode() not in stored


@pytest.mark.parametrize("key", ["", "k" * 129, "a\tb"])
def test_a_bad_idempotency_key_is_refused(
    key: str, client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    headers = {**_management(alice), "Idempotency-Key": key}
    assert _post(client, f"{TENANT}/keys/", {"name": "CI"}, headers).status_code == 400
    assert not ApiKey.objects.filter(name="CI").exists()


def test_one_caller_s_idempotency_key_is_not_another_s(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # when
    made = [
        _post(
            client,
            f"{TENANT}/keys/",
            {"name": "CI"},
            {**_management(alice), "Idempotency-Key": "same"},
        )
        for _ in range(2)
    ]
    # then
    assert made[0].json()["secret"] != made[1].json()["secret"]


def test_a_long_list_comes_in_pages(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    headers = _management(alice)
    for number in range(5):
        _post(client, f"{TENANT}/keys/", {"name": f"key {number}"}, headers)
    # when
    names: list[str] = []
    url = f"{TENANT}/keys/?limit=2"
    while url:
        answer = client.get(url, headers=headers)
        names += [key["name"] for key in answer.json()]
        url = answer.get("Link", "").partition(">")[0].lstrip("<")
    # then
    assert names == ["key 4", "key 3", "key 2", "key 1", "key 0", "ops"]
    for bad in ("cursor=x", "cursor=-1", "limit=0", "limit=1e9", "cursor=99999999999999999999"):
        assert client.get(f"{TENANT}/keys/?{bad}", headers=headers).status_code == 400


def test_a_key_makes_none_that_outlives_it(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    ends = timezone.now() + timedelta(hours=1)
    maker = keys.issue(
        tenant=alice.tenant,
        name="short",
        scopes=(keys.MANAGEMENT,),
        created_by="test",
        now=timezone.now(),
        expires_at=ends,
    )
    headers = {"Authorization": f"Bearer {maker.plain}"}
    later = (ends + timedelta(seconds=1)).isoformat()
    # then
    for expiry in ({}, {"expires_at": later}):
        refused = _post(client, f"{TENANT}/keys/", {"name": "heir", **expiry}, headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "outlives_its_maker")
    within = {"name": "heir", "expires_at": ends.isoformat()}
    assert _post(client, f"{TENANT}/keys/", within, headers).status_code == 201


def test_a_management_key_makes_no_owner(
    client: Client, alice: Person, bob: Person, redis_client: redis.Redis
) -> None:
    # given
    headers = _management(alice)
    one = f"{TENANT}/members/{bob.member.pk}/"
    # then
    assert _put(client, one, {"role": "owner"}, headers).status_code == 422
    assert _put(client, one, {"role": "viewer", "team": "main"}, headers).json()["role"] == "viewer"
    assert client.delete(f"{TENANT}/members/{alice.member.pk}/", headers=headers).status_code == 422
    assert client.delete(one, headers=headers).status_code == 204
    assert [m["username"] for m in client.get(f"{TENANT}/members/", headers=headers).json()] == [
        "alice"
    ]


@pytest.mark.parametrize("limit", ["١٢", "1e400", "NaN", "-1e400", "12.5 ", "0x10", "1_000"])
def test_a_sum_in_other_digits_is_refused(
    limit: str, client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    body = {"scope_kind": "tenant", "scope": "aurora", "window": "day", "limit_usd": limit}
    # when
    answer = _put(client, f"{TENANT}/quotas/", body, _management(alice))
    # then
    assert answer.status_code == 400
    assert Quota.objects.count() == 0
