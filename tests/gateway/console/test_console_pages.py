"""The pages of a tenant: what they show and change, for whom, and for whom not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.credit import balances as credit
from billing.models import Quota, RateLimit
from billing.operations import rebuild
from gateway.kinds import Role
from gateway.models import ApiKey, Member, RoutingPolicy, Team
from gateway.tenants import keys
from tests.gateway.console_rows import measured, offer, refused, served
from tests.gateway.pages import said
from tests.people import Person, _join

PAGES = ("overview", "requests", "keys", "budgets", "routing", "start", "playground")


@pytest.fixture
def alice_client(alice: Person, client: Client, redis_client: redis.Redis) -> Client:
    client.force_login(alice.user)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_pages_of_a_tenant_ask_to_sign_in(page: str, client: Client, db: None) -> None:
    answer = client.get(f"/{page}/")

    assert answer.status_code == 302
    assert answer["Location"] == f"/login/?next=/{page}/"


@pytest.mark.parametrize("page", PAGES)
def test_pages_open_for_a_member_with_traffic(
    page: str, alice: Person, alice_client: Client
) -> None:
    served(alice.tenant, offer(), at=timezone.now())

    assert alice_client.get(f"/{page}/").status_code == 200


def test_the_overview_of_a_tenant_without_requests_leads_to_the_first_run(
    alice_client: Client,
) -> None:
    assert alice_client.get("/overview/")["Location"] == "/start/"


def test_the_charts_parts_sum_to_the_spend_above_it(alice: Person, alice_client: Client) -> None:
    # given spend on two models over the days of this month
    now = timezone.now()
    small, large = offer(), offer("zeta", "large", output_pico=7_777_777)
    for hours in range(1, 200, 13):
        at = now - timedelta(hours=hours)
        served(alice.tenant, small if hours % 2 else large, at=at)

    # when
    figures = alice_client.get("/overview/").context["figures"]

    # then
    in_month = sum(
        pico
        for series in figures.series
        for day, pico in series.by_day.items()
        if day.month == now.month
    )
    assert in_month == figures.now.cost_pico


def test_bob_sees_what_alice_spent(alice: Person, bob: Person, client: Client) -> None:
    served(alice.tenant, offer(), at=timezone.now())
    client.force_login(bob.user)

    assert client.get("/overview/").context["figures"].now.requests == 1


def test_charlie_sees_nothing_of_alices(alice: Person, charlie: Person, client: Client) -> None:
    # given
    served(alice.tenant, offer(), at=timezone.now())
    refused(alice.tenant, at=timezone.now())
    issued = keys.issue(tenant=alice.tenant, name="alices", created_by="alice", now=timezone.now())
    client.force_login(charlie.user)

    # then
    assert client.get("/requests/").context["page"].rows == []
    assert client.get("/keys/").context["page"].rows == []
    assert "alices" not in client.get("/budgets/").content.decode()
    revoking = client.post(f"/keys/{issued.key.pk}/revoke/")
    assert revoking.status_code == 404
    assert ApiKey.objects.get(pk=issued.key.pk).revoked_at is None


def test_charlie_cannot_choose_alices_tenant(
    alice: Person, charlie: Person, client: Client
) -> None:
    served(alice.tenant, offer(), at=timezone.now())
    client.force_login(charlie.user)

    client.post("/tenant/", {"tenant": alice.tenant.pk})

    assert client.get("/requests/").context["member"].tenant == charlie.tenant


def test_a_member_of_two_tenants_moves_between_them(
    alice: Person, charlie: Person, alice_client: Client
) -> None:
    Member.objects.create(user=alice.user, tenant=charlie.tenant, role=Role.VIEWER)

    alice_client.post("/tenant/", {"tenant": charlie.tenant.pk})

    assert alice_client.get("/keys/").context["member"].tenant == charlie.tenant


def test_a_new_keys_secret_is_shown_once_and_kept_nowhere(alice_client: Client) -> None:
    # when
    made = alice_client.post("/keys/new/", {"name": "web app", "scopes": ["inference"]})

    # then the page holds a key that authenticates, and no later page does
    plain = made.context["issued"].plain
    assert made.status_code == 201
    assert plain in made.content.decode()
    assert "no-store" in made["Cache-Control"]
    assert keys.find(plain) == ApiKey.objects.get()
    assert plain not in alice_client.get("/keys/").content.decode()


def test_a_key_form_with_mistakes_makes_no_key(alice_client: Client) -> None:
    answer = alice_client.post("/keys/new/", {"name": "", "scopes": ["everything"]})

    assert answer.status_code == 422
    assert not ApiKey.objects.exists()


def test_a_key_of_another_tenants_team_is_refused(charlie: Person, alice_client: Client) -> None:
    asked = {"name": "web", "scopes": ["inference"], "team": charlie.team.pk}

    assert alice_client.post("/keys/new/", asked).status_code == 422
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "web", "scopes": ["management"], "team": "own"},
        {"name": "web", "scopes": ["inference"]},
        {"name": "web", "scopes": ["inference"], "team": "other"},
    ],
)
def test_a_developers_key_neither_manages_nor_leaves_the_team(
    asked: dict[str, Any], bob: Person, client: Client
) -> None:
    # given
    other = Team.objects.create(tenant=bob.tenant, slug="other", name="Other")
    teams = {"own": bob.team.pk, "other": other.pk}
    client.force_login(bob.user)

    # when
    answer = client.post("/keys/new/", asked | {"team": teams.get(asked.get("team", ""), "")})

    # then
    assert answer.status_code == 422
    assert not ApiKey.objects.exists()


def test_a_developer_makes_a_key_of_the_own_team(
    bob: Person, client: Client, redis_client: redis.Redis
) -> None:
    # given
    client.force_login(bob.user)

    # when
    asked = {"name": "web", "scopes": ["inference"], "team": bob.team.pk}
    answer = client.post("/keys/new/", asked)

    # then
    assert answer.status_code == 201
    assert ApiKey.objects.get().team == bob.team


def test_revoking_is_final_and_said(alice: Person, alice_client: Client) -> None:
    key = keys.issue(tenant=alice.tenant, name="old", created_by="a", now=timezone.now()).key

    answer = alice_client.post(f"/keys/{key.pk}/revoke/", follow=True)

    assert "old is revoked" in answer.content.decode()
    assert not keys.is_live(ApiKey.objects.get(), timezone.now())


@pytest.mark.parametrize(
    ("role", "address", "asked"),
    [
        ("viewer", "/keys/new/", {"name": "web", "scopes": ["inference"]}),
        ("viewer", "/start/key/", {}),
        ("developer", "/budgets/quota/", {"scope": "tenant:1", "window": "day", "limit_usd": "1"}),
        ("developer", "/budgets/rate-limit/", {"scope": "tenant:1", "rpm": "1"}),
        ("developer", "/routing/", {"kind": "fastest"}),
    ],
)
def test_a_role_that_may_not_is_refused_and_changes_nothing(
    role: str, address: str, asked: dict[str, Any], alice: Person, client: Client
) -> None:
    dora = _join("dora", alice.tenant, alice.team, Role(role))
    client.force_login(dora.user)

    assert client.post(address, asked).status_code == 403
    assert not ApiKey.objects.exists()
    assert not Quota.objects.exists()
    assert not RateLimit.objects.exists()
    assert not RoutingPolicy.objects.exists()


def test_a_budget_is_set_and_lifted(
    alice: Person, alice_client: Client, redis_client: redis.Redis
) -> None:
    # given a shard that is warm
    rebuild.rebuild(redis_client, alice.tenant.shard, now=timezone.now())
    scope = f"tenant:{alice.tenant.pk}"

    # when
    alice_client.post(
        "/budgets/quota/", {"scope": scope, "window": "month", "limit_usd": "3000.000001"}
    )

    # then it is exact, and shown with what is spent of it
    quota = Quota.objects.get()
    assert quota.limit_pico == 3_000_000_001_000_000
    rows = alice_client.get("/budgets/").context["quotas"]
    assert [(row.limit_pico, row.spent_pico) for row in rows] == [(3_000_000_001_000_000, 0)]

    # and when it is lifted
    alice_client.post(f"/budgets/quota/{quota.pk}/remove/")
    assert not Quota.objects.exists()


@pytest.mark.parametrize(
    ("address", "limit"),
    [
        ("/budgets/rate-limit/", {"rpm": "1"}),
        ("/budgets/quota/", {"window": "day", "limit_usd": "1"}),
    ],
)
def test_a_limit_for_another_tenants_scope_is_refused(
    address: str, limit: dict[str, str], charlie: Person, alice_client: Client
) -> None:
    key = keys.issue(tenant=charlie.tenant, name="c", created_by="c", now=timezone.now()).key

    for scope in (f"tenant:{charlie.tenant.pk}", f"team:{charlie.team.pk}", f"key:{key.pk}"):
        assert alice_client.post(address, {"scope": scope, **limit}).status_code == 422
    assert not RateLimit.objects.exists()
    assert not Quota.objects.exists()


def test_another_tenants_budget_cannot_be_lifted(charlie: Person, alice_client: Client) -> None:
    quota = Quota.objects.create(
        tenant=charlie.tenant,
        scope_kind="tenant",
        scope_id=charlie.tenant.pk,
        window="day",
        limit_pico=1,
    )

    alice_client.post(f"/budgets/quota/{quota.pk}/remove/")

    assert Quota.objects.get() == quota


def test_rate_limits_are_set(alice: Person, alice_client: Client) -> None:
    asked = {"scope": f"tenant:{alice.tenant.pk}", "rpm": "60", "concurrency": "4"}

    alice_client.post("/budgets/rate-limit/", asked)

    limit = RateLimit.objects.get()
    assert (limit.rpm, limit.tpm, limit.concurrency) == (60, None, 4)


def test_a_policy_is_saved_as_typed(alice: Person, alice_client: Client) -> None:
    sold = offer()

    alice_client.post(
        "/routing/",
        {"kind": "pinned", "pinned_skus": f" {sold.sku} \n", "max_output_usd": "0.6"},
    )

    policy = RoutingPolicy.objects.get(tenant=alice.tenant)
    assert (policy.kind, policy.pinned_skus) == ("pinned", ["acme/small"])
    assert policy.max_output_pico == 600_000
    assert not policy.allow_fallbacks


def test_a_policy_that_names_an_unknown_offer_is_refused_in_words(alice_client: Client) -> None:
    answer = alice_client.post("/routing/", {"kind": "pinned", "pinned_skus": "no/such"})

    assert answer.status_code == 422
    assert "unknown offers: no/such" in answer.content.decode()
    assert not RoutingPolicy.objects.exists()


def test_a_policys_effect_is_the_same_tokens_at_its_offers(
    alice: Person, alice_client: Client
) -> None:
    # given traffic bought at the dearer of two in-house offers
    dear = offer("acme", "small", output_pico=400_000)
    offer("zeta", "small", input_pico=50_000, cached_pico=25_000, output_pico=200_000)
    served(alice.tenant, dear, at=timezone.now())

    # when the cheaper one cannot be called (no credential)
    options = {o.kind: o.effect for o in alice_client.get("/routing/").context["options"]}

    # then nothing is promised
    assert options["cheapest"].cost_pico == 212_600_000
    assert options["cheapest"].change_percent == 0
    assert options["pinned"] is None


def test_the_first_run_makes_a_key_and_fills_in_the_line(alice_client: Client) -> None:
    before = alice_client.get("/start/").content.decode()
    page = alice_client.post("/start/key/")

    assert "$TOKENHOUSE_KEY" in before
    assert "Waiting for the first request" in before
    assert f"Bearer {page.context['plain']}" in page.content.decode().replace("&#x27;", "'")
    assert "no-store" in page["Cache-Control"]


def test_the_first_run_notices_the_request(alice: Person, alice_client: Client) -> None:
    served(alice.tenant, offer(), at=timezone.now())

    part = alice_client.get("/start/arrived/").content.decode()

    assert "$0.000\u2009212\u2009600" in part
    assert "Waiting" not in part


def test_the_balance_stands_in_the_frame(
    alice: Person,
    alice_client: Client,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        credit.grant(tenant=alice.tenant, amount_pico=5 * 10**12, reason="test", created_by="tests")

    assert "$5.00 left" in said(alice_client.get("/keys/"))


def test_people_without_a_tenant_are_told(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)

    answer = client.get("/overview/")

    assert answer.status_code == 403
    assert "You belong to no tenant" in answer.content.decode()


def test_the_board_needs_no_account_and_says_why_an_offer_is_not_routable(
    client: Client, db: None
) -> None:
    # given
    listed = offer("acme", "small")
    now = timezone.now()
    measured(listed, at=now, requests=25, tps=91.0, ttft_ms=188.0)

    # when
    home = client.get("/").content.decode()
    board = said(client.get("/models/small/"))

    # then
    assert 'href="/models/small/"' in home
    assert "not routable: no credential" in board
    assert client.get("/models/none/").status_code == 404


def test_sort_and_window_of_the_board_stand_in_the_url(client: Client, db: None) -> None:
    offer("acme", "small", output_pico=400_000)
    offer("zeta", "small", output_pico=200_000)

    page = client.get("/models/small/?sort=offer&dir=desc&window=7d")

    assert [line.row.provider for line in page.context["lines"]] == ["zeta", "acme"]
    assert 'aria-sort="descending"' in page.content.decode()
    assert page.context["board"].window == "7d"


def test_the_boards_csv_holds_the_same_rows(client: Client, db: None) -> None:
    offer("acme", "small", since=datetime(2026, 3, 1, tzinfo=UTC))

    rows = client.get("/models/small/offers.csv").content.decode().splitlines()
    prices = client.get("/models/small/prices.csv").content.decode().splitlines()

    assert rows[1].startswith("1,acme/small,Acme,,external,live,False,")
    assert prices[1] == "acme/small,Acme,2026-03-01T00:00:00+00:00,0.4"


def test_the_board_can_be_priced_on_ones_own_mix(alice: Person, alice_client: Client) -> None:
    # given what alice sends: much input for little output
    sold = offer(input_pico=100_000, cached_pico=100_000, output_pico=400_000)
    served(alice.tenant, sold, at=timezone.now(), input_tokens=9_000, output_tokens=1_000)

    # when
    shared = alice_client.get("/models/small/").context["board"]
    own = alice_client.get("/models/small/?mix=mine").context["board"]

    # then 9 input tokens at $0.10 go with each output token at $0.40
    assert (own.mix.source, own.rows[0].effective.pico) == ("mine", 1_300_000)
    assert shared.mix.source == "standard"


def test_a_strangers_own_mix_is_the_shared_one(client: Client, db: None) -> None:
    offer()

    assert client.get("/models/small/?mix=mine").context["board"].mix.source == "standard"
