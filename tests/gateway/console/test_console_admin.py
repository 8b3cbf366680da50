"""The admin console: it opens, it writes only through services, and it shows no secret twice."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.credit import balances as credit
from billing.models import (
    CreditGrant,
    InvariantCheck,
    PriceVersion,
    Quota,
    RateLimit,
    TaskRun,
)
from billing.operations import rebuild
from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.models import ApiKey, RoutingPolicy
from gateway.tenants import keys
from providers.market import credentials
from providers.models import Credential, Offer, WorkerKey
from tests import listed
from tests.gateway.console_rows import offer, refused, served
from tests.people import Person

PAGES = (
    "",
    "billing/tenant/",
    "billing/tenant/add/",
    "billing/tenant/open-holds/",
    "billing/creditgrant/",
    "billing/creditgrant/add/",
    "billing/priceversion/",
    "billing/priceversion/add/",
    "billing/priceproposal/",
    "billing/pricedisagreement/",
    "providers/pricesource/",
    "providers/pricesource/add/",
    "gateway/seller/",
    "billing/planassignment/",
    "billing/rebatescale/",
    "billing/rebatescale/add/",
    "billing/adjustmentnote/",
    "billing/volumerebate/",
    "providers/provider/drift/",
    "gateway/seller/add/",
    "billing/pricelist/",
    "billing/pricelist/add/",
    "billing/pricerule/",
    "billing/pricerule/add/",
    "billing/rerating/",
    "billing/rerating/add/",
    "billing/quota/",
    "billing/quota/add/",
    "billing/ratelimit/",
    "billing/creditalert/",
    "billing/invoice/",
    "billing/invoice/draft-due/",
    "billing/billingprofile/",
    "billing/billingprofile/add/",
    "billing/creditnote/",
    "billing/payment/",
    "billing/topup/",
    "billing/payout/",
    "billing/providerbill/",
    "billing/providerbill/add/",
    "billing/dispute/",
    "billing/processorevent/",
    "billing/account/",
    "billing/transfer/",
    "billing/entry/",
    "billing/usageevent/",
    "billing/usageevent/?state__exact=quarantined",
    "billing/claim/",
    "billing/claim/?decided_at__isempty=1",
    "billing/invariantcheck/",
    "billing/finding/",
    "billing/finding/?resolved_at__isempty=1",
    "billing/taskrun/",
    "providers/provider/",
    "providers/model/",
    "providers/offer/",
    "providers/credential/",
    "providers/credential/add/",
    "providers/worker/",
    "providers/workerkey/",
    "providers/workerkey/add/",
    "gateway/apikey/",
    "gateway/apikey/add/",
    "gateway/member/",
    "gateway/groupmapping/",
    "gateway/groupmapping/add/",
    "gateway/identity/",
    "gateway/team/",
    "gateway/routingpolicy/",
    "gateway/refusal/",
    "auth/user/",
)
# Django's client decides by these whether to follow; a POST that worked leads back to a list.
SAVED = 302


@pytest.fixture
def operator(admin_client: Client, redis_client: redis.Redis) -> Client:
    return admin_client


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_over_real_rows(page: str, operator: Client, alice: Person) -> None:
    now = timezone.now()
    served(alice.tenant, offer(), at=now)
    refused(alice.tenant, at=now)
    InvariantCheck.objects.create(name="entries_sum_to_zero", holds=False, checked_at=now)
    TaskRun.objects.create(name="drain", started_at=now)

    assert operator.get(f"/admin/{page}").status_code == 200


def test_members_of_a_tenant_have_no_way_in(alice: Person, client: Client) -> None:
    client.force_login(alice.user)

    assert client.get("/admin/billing/tenant/").status_code == 302


def test_addresses_outside_the_list_are_refused_whoever_asks(operator: Client) -> None:
    assert operator.get("/admin/", REMOTE_ADDR="192.0.2.7").status_code == 403


def test_credit_is_granted_through_the_ledger(operator: Client, alice: Person) -> None:
    asked = {"tenant": alice.tenant.pk, "reason": "welcome", "amount_usd": "12.000000000001"}

    answer = operator.post("/admin/billing/creditgrant/add/", asked)

    grant = CreditGrant.objects.get()
    assert answer.status_code == SAVED
    assert grant.amount_pico == 12_000_000_000_001
    assert grant.created_by == "admin"
    assert sum(entry.amount_pico for entry in grant.transfer.entries.all()) == 0
    assert credit.credit_pico(alice.tenant) == 12_000_000_000_001


def test_credit_is_granted_until_a_moment(operator: Client, alice: Person) -> None:
    # given
    asked = {"tenant": alice.tenant.pk, "reason": "welcome", "amount_usd": "5"}
    # when
    answers = [
        operator.post(
            "/admin/billing/creditgrant/add/",
            {**asked, "expires_at_0": day, "expires_at_1": "12:00:00"},
        ).status_code
        for day in ("2020-01-01", "2999-01-01")
    ]
    # then
    assert answers == [SAVED, SAVED]
    grant = CreditGrant.objects.get()
    assert str(grant.expires_at) == "2999-01-01 12:00:00+00:00"


def test_an_absurd_grant_is_refused_in_words_and_moves_nothing(
    operator: Client, alice: Person
) -> None:
    asked = {"tenant": alice.tenant.pk, "reason": "slip", "amount_usd": "99000000"}

    answer = operator.post("/admin/billing/creditgrant/add/", asked, follow=True)

    assert "Nothing was changed: not an amount that can be granted" in answer.content.decode()
    assert not CreditGrant.objects.exists()


def test_suspending_a_tenant_reaches_redis(
    operator: Client,
    alice: Person,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    asked = {
        "name": "Aurora", "slug": "aurora", "status": "suspended", "time_zone": "UTC",
        "max_output_tokens": "4096", "credit_limit_usd": "2.5", "hold_mode": "strict",
        "overdraft_usd": "0",
    }  # fmt: skip

    with django_capture_on_commit_callbacks(execute=True):
        operator.post(f"/admin/billing/tenant/{alice.tenant.pk}/change/", asked)

    alice.tenant.refresh_from_db()
    register = redis_client.hgetall(f"tenant:{{s{alice.tenant.shard:02d}}}:{alice.tenant.pk}")
    assert alice.tenant.status == "suspended"
    assert alice.tenant.credit_limit_pico == Decimal("2500000000000")
    assert register[b"status"] == b"suspended"
    assert register[b"credit"] == b"2500000000"


def test_a_price_is_shown_with_its_effect_before_it_is_published(
    operator: Client, alice: Person
) -> None:
    # given a sku that alice used: 504 uncached, 700 cached, 318 out
    sold = offer()
    served(alice.tenant, sold, at=timezone.now())
    asked = {"sku": sold.sku, "input": "0.2", "cache_read": "0.05", "output": "0.3"}

    # when
    page = operator.post("/admin/billing/priceversion/add/", {**asked, "_preview": "1"})

    # then nothing is published, and the effect is exact
    shown = page.context["preview"]
    assert PriceVersion.objects.count() == 1
    assert shown.tenants == 1
    assert shown.old_cost_pico == 212_600_000
    assert shown.new_cost_pico == 504 * 200_000 + 700 * 50_000 + 318 * 300_000
    assert {c.label: c.change_percent for c in shown.changes}["Output"] == Decimal("-25.0")

    # and when the operator goes on
    operator.post("/admin/billing/priceversion/add/", {**asked, "_publish": "1"})
    (price,) = listed.price_at(sold.sku, timezone.now())
    assert (price.input_pico, price.output_pico) == (200_000, 300_000)
    assert PriceVersion.objects.get(pk=price.version).recorded_by == "admin"


def test_a_zero_price_that_is_not_called_free_is_refused(operator: Client, db: None) -> None:
    sold = offer()
    asked = {"sku": sold.sku, "input": "0", "output": "0", "_publish": "1"}

    answer = operator.post("/admin/billing/priceversion/add/", asked, follow=True)

    assert "Not published" in answer.content.decode()
    assert PriceVersion.objects.count() == 1


def test_a_withdrawn_price_is_none_and_the_data_plane_is_told(
    operator: Client,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    sold = offer()
    asked = {"action": "withdraw", "_selected_action": str(sold.version.pk)}

    with django_capture_on_commit_callbacks(execute=True):
        operator.post("/admin/billing/priceversion/", asked)

    assert listed.price_at(sold.sku, timezone.now()) == ()
    assert redis_client.get(SNAPSHOT_VERSION_KEY) == b"1"


def test_a_rate_limit_is_set_by_its_service_and_the_data_plane_is_told(
    operator: Client,
    alice: Person,
    charlie: Person,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    asked = {
        "tenant": alice.tenant.pk, "scope_kind": "tenant", "scope_id": alice.tenant.pk, "rpm": "7",
    }  # fmt: skip

    with django_capture_on_commit_callbacks(execute=True):
        operator.post("/admin/billing/ratelimit/add/", asked)
        refused = operator.post(
            "/admin/billing/ratelimit/add/", {**asked, "scope_id": charlie.tenant.pk}, follow=True
        )

    assert [limit.rpm for limit in RateLimit.objects.all()] == [7]
    assert redis_client.get(SNAPSHOT_VERSION_KEY) == b"1"
    assert "Nothing was changed" in refused.content.decode()


def test_a_quota_is_set_by_its_service(
    operator: Client,
    alice: Person,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    rebuild.rebuild(redis_client, alice.tenant.shard, now=timezone.now())
    asked = {
        "tenant": alice.tenant.pk, "scope_kind": "tenant", "scope_id": alice.tenant.pk,
        "window": "day", "limit_usd": "3",
    }  # fmt: skip

    with django_capture_on_commit_callbacks(execute=True):
        operator.post("/admin/billing/quota/add/", asked)

    assert Quota.objects.get().limit_pico == 3 * 10**12
    assert redis_client.get(SNAPSHOT_VERSION_KEY) == b"1"


def test_a_credential_is_written_encrypted_and_never_shown(operator: Client, db: None) -> None:
    # given
    seller = offer().offer.provider
    secret = "sk-very-secret-1234"

    # when
    operator.post(
        "/admin/providers/credential/add/",
        {"provider": seller.pk, "label": "main", "secret": secret},
    )

    # then
    kept = Credential.objects.get()
    page = operator.get(f"/admin/providers/credential/{kept.pk}/change/").content.decode()
    assert credentials.decrypt(kept.ciphertext) == secret
    assert secret.encode() not in bytes(kept.ciphertext)
    assert secret not in page
    assert "…1234" in operator.get("/admin/providers/credential/").content.decode()


def test_a_worker_key_shows_the_line_that_joins_once(operator: Client, db: None) -> None:
    asked = {"label": "lab", "allowed_network": "10.1.0.0/16"}

    page = operator.post("/admin/providers/workerkey/add/", asked)

    key = WorkerKey.objects.get()
    assert f"wk-{key.public_id}-" in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert (
        f"wk-{key.public_id}-" not in operator.get("/admin/providers/workerkey/").content.decode()
    )


def test_a_worker_key_may_be_for_some_models(operator: Client, db: None) -> None:
    asked = {"label": "lab", "allowed_network": "10.0.0.0/8", "models_allowed": "fox-1, fox-2"}

    operator.post("/admin/providers/workerkey/add/", asked)
    refused = operator.post(
        "/admin/providers/workerkey/add/", asked | {"models_allowed": "no slug"}, follow=True
    )

    assert WorkerKey.objects.get().models_allowed == ["fox-1", "fox-2"]
    assert "Nothing was changed" in refused.content.decode()


def test_a_network_that_is_none_makes_no_worker_key(operator: Client, db: None) -> None:
    asked = {"label": "lab", "allowed_network": "everywhere"}

    answer = operator.post("/admin/providers/workerkey/add/", asked, follow=True)

    assert "Nothing was changed" in answer.content.decode()
    assert not WorkerKey.objects.exists()


def test_an_api_key_made_by_the_operator_works_and_can_be_revoked(
    operator: Client, alice: Person
) -> None:
    # given
    page = operator.post("/admin/gateway/apikey/add/", {"tenant": alice.tenant.pk, "name": "ci"})
    key = keys.find(page.context["secret"])

    # when
    operator.post("/admin/gateway/apikey/", {"action": "revoke", "_selected_action": [key.pk]})

    # then
    assert ApiKey.objects.get().revoked_at is not None


def test_an_offer_is_switched_off_with_who_did_it(operator: Client, db: None) -> None:
    sold = offer()

    operator.post(
        "/admin/providers/offer/", {"action": "switch_off", "_selected_action": [sold.offer.pk]}
    )

    switched = Offer.objects.get()
    assert (switched.state, switched.state_reason) == ("disabled", "switched off by admin")


def test_a_policy_that_cannot_route_is_refused(operator: Client, alice: Person) -> None:
    asked = {
        "tenant": alice.tenant.pk, "kind": "pinned", "pinned_skus": "[]",
        "providers_allowed": "[]", "allow_fallbacks": "on",
    }  # fmt: skip

    answer = operator.post("/admin/gateway/routingpolicy/add/", asked, follow=True)

    assert "names at least one offer" in answer.content.decode()
    assert not RoutingPolicy.objects.exists()


@pytest.mark.parametrize("table", ["transfer", "entry", "account", "usageevent", "priceversion"])
def test_what_happened_cannot_be_edited(table: str, operator: Client, alice: Person) -> None:
    served(alice.tenant, offer(), at=timezone.now())
    listed = operator.get(f"/admin/billing/{table}/").context["cl"].result_list[0]

    answer = operator.post(f"/admin/billing/{table}/{listed.pk}/change/", {"code": "x"})

    assert answer.status_code == 403
    assert operator.post(f"/admin/billing/{table}/{listed.pk}/delete/").status_code == 403
