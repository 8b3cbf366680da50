"""What a tenant on a plan is quoted, pinned and charged, from the rows to the settled event."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from billing import price_lists, prices
from billing.models import PriceList, PriceVersion, Tenant
from billing.usage import CanonicalUsage
from gateway import keys
from gateway.dataplane import settlement
from gateway.dataplane.auth import Principal
from gateway.dataplane.snapshot import Snapshot
from gateway.dataplane.snapshot_loader import DatabaseSource
from gateway.models import ApiKey
from gateway.routing import router
from gateway.routing.breaker import Breaker
from gateway.routing.router import Limits
from providers.chat import Candidate
from providers.models import Model, Offer, Provider
from tests.factories import openai_request
from tests.gateway import test_dataplane_settlement as settling

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timezone.now()
SKU = "acme/fox"
LIST_PICO, PLAN_PICO, COST_PICO = 600_000, 540_000, 480_000


@pytest.fixture
def tenant() -> Tenant:
    """On a plan with 10 % off; the house pays the supplier 20 % less than its list price."""
    provider = Provider.objects.create(
        slug="acme", name="Acme", kind=Provider.Kind.POOL, wire="openai", base_url="http://10.0.0.9"
    )
    model = Model.objects.create(slug="fox", name="Fox", context_length=8_192)
    Offer.objects.create(
        provider=provider, model=model, sku=SKU, upstream_model="fox-1", capabilities=["chat"]
    )
    publish(LIST_PICO)
    plan = PriceList.objects.create(slug="startup", name="Startup")
    for price_list, change in ((plan, -100_000), (price_lists.cost_list(), -200_000)):
        price_lists.set_rule(
            price_list=price_list, pattern="", change_ppm=change, actor="op", now=NOW
        )
    made = Tenant.objects.create(slug="aurora", name="Aurora", plan=plan)
    keys.issue(tenant=made, team=None, name="key", created_by="op", now=NOW)
    return made


def publish(output_pico: int, *, since: datetime = NOW - timedelta(days=1)) -> PriceVersion:
    return prices.publish(
        sku_code=SKU,
        input_pico=200_000,
        cache_read_pico=200_000,
        cache_write_5m_pico=200_000,
        cache_write_1h_pico=200_000,
        output_pico=output_pico,
        reasoning_pico=output_pico,
        valid_from=since,
        source="test",
        recorded_by="test",
    )


def loaded() -> tuple[Snapshot, Principal]:
    snapshot = DatabaseSource().load(int(NOW.timestamp() * 1000))
    (principal,) = snapshot.keys.values()
    return snapshot, principal


def candidate(snapshot: Snapshot, principal: Principal, *, now: datetime = NOW) -> Candidate:
    ranking = router.rank(
        openai_request(model="fox", max_tokens=10),
        offers_by_model=snapshot.offers_by_model,
        policy=principal.policy,
        limits=Limits(price_lists=principal.price_lists),
        speeds={},
        breaker=Breaker(),
        now_ms=int(now.timestamp() * 1000),
    )
    assert ranking.candidates, ranking.rejections
    return ranking.candidates[0]


def test_a_tenant_is_quoted_its_plan_s_price_and_the_supplier_s_is_known(tenant: Tenant) -> None:
    # when
    found = candidate(*loaded())
    # then
    assert [p.output_pico for p in found.prices] == [PLAN_PICO]
    assert [p.output_pico for p in found.cost_prices] == [COST_PICO]
    assert found.worst_pico == found.input_bound * 180_000 + 10 * PLAN_PICO


def test_the_charge_is_the_plan_s_and_the_supplier_s_bill_its_own(tenant: Tenant) -> None:
    # given
    found = candidate(*loaded())
    ended = settling.attempt(
        "ok",
        usage=CanonicalUsage(input_tokens=100, output_tokens=10),
        finished=True,
        shown=40,
        read=40,
    )
    ended.candidate = found
    # when
    charge = settlement.charge_of(settling.exchange(ended), ended)
    # then
    version = PriceVersion.objects.get(pk=charge.price)
    assert version.price_list == tenant.plan
    assert charge.tenant_pico == 100 * 180_000 + 10 * PLAN_PICO
    assert charge.supplier_pico == 100 * 160_000 + 10 * COST_PICO


def test_a_tenant_without_a_plan_pays_the_list_price(tenant: Tenant) -> None:
    # given
    price_lists.assign(tenant=tenant, plan=None, actor="op", now=NOW)
    # when
    found = candidate(*loaded())
    # then
    assert [p.output_pico for p in found.prices] == [LIST_PICO]
    assert [p.output_pico for p in found.cost_prices] == [COST_PICO]


def test_a_price_that_begins_while_a_snapshot_stands_holds_from_its_moment(
    tenant: Tenant,
) -> None:
    # given
    begins = NOW + timedelta(minutes=5)
    publish(1_000_000, since=begins)
    snapshot, principal = loaded()
    # when
    before = candidate(snapshot, principal, now=begins - timedelta(milliseconds=1))
    after = candidate(snapshot, principal, now=begins + timedelta(milliseconds=1))
    # then
    assert [p.output_pico for p in before.prices] == [PLAN_PICO]
    assert [p.output_pico for p in after.prices] == [900_000]
    assert [p.output_pico for p in after.cost_prices] == [800_000]


def test_a_snapshot_that_is_days_old_sells_nothing_of_what_may_have_changed(
    tenant: Tenant,
) -> None:
    # given
    snapshot, principal = loaded()
    assert ApiKey.objects.count() == 1
    # when
    ranking = router.rank(
        openai_request(model="fox"),
        offers_by_model=snapshot.offers_by_model,
        policy=principal.policy,
        limits=Limits(price_lists=principal.price_lists),
        speeds={},
        breaker=Breaker(),
        now_ms=int((NOW + timedelta(days=3)).timestamp() * 1000),
    )
    # then
    assert [r.code for r in ranking.rejections] == ["no_price"]
