"""What a tenant on a plan is quoted, pinned and charged, from the rows to the settled event."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from billing.models import PriceList, PriceVersion, Tenant
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices import versions as prices
from billing.prices.price_spans import lists_at
from billing.usage import CanonicalUsage
from gateway.dataplane.auth import Principal
from gateway.dataplane.settling import charges
from gateway.dataplane.snapshots.loader import DatabaseSource
from gateway.dataplane.snapshots.snapshot import Snapshot
from gateway.models import ApiKey
from gateway.routing import router
from gateway.routing.breaker import Breaker
from gateway.routing.router import Limits
from gateway.tenants import keys
from providers.chat import Candidate
from providers.models import Model, Offer, Provider
from tests.factories import openai_request
from tests.gateway.dataplane.settling import test_dataplane_charges as settling

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timezone.now().replace(microsecond=0)
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
    made = Tenant.objects.create(slug="aurora", name="Aurora")
    plans.assign(tenant=made, plan=plan, actor="op", now=NOW - timedelta(hours=1))
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
    now_ms = int(now.timestamp() * 1000)
    ranking = router.rank(
        openai_request(model="fox", max_tokens=10),
        offers_by_model=snapshot.offers_by_model,
        policy=principal.policy,
        limits=Limits(price_lists=lists_at(principal.price_lists, now_ms)),
        speeds={},
        breaker=Breaker(),
        now_ms=now_ms,
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
    charge = charges.charge_of(settling.exchange(ended), ended)
    # then
    version = PriceVersion.objects.get(pk=charge.price)
    assert version.price_list == plans.of(tenant, NOW)
    assert charge.tenant_pico == 100 * 180_000 + 10 * PLAN_PICO
    assert charge.supplier_pico == 100 * 160_000 + 10 * COST_PICO


def test_a_tenant_without_a_plan_pays_the_list_price(tenant: Tenant) -> None:
    # given
    plans.assign(tenant=tenant, plan=None, actor="op", now=NOW)
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
    now_ms = int((NOW + timedelta(days=3)).timestamp() * 1000)
    # when
    ranking = router.rank(
        openai_request(model="fox"),
        offers_by_model=snapshot.offers_by_model,
        policy=principal.policy,
        limits=Limits(price_lists=lists_at(principal.price_lists, now_ms)),
        speeds={},
        breaker=Breaker(),
        now_ms=now_ms,
    )
    # then
    assert [r.code for r in ranking.rejections] == ["no_price"]


def test_a_plan_that_begins_while_a_snapshot_stands_holds_from_its_moment(tenant: Tenant) -> None:
    # given: known before, and Postgres not asked again
    half = PriceList.objects.create(slug="half", name="Half")
    price_lists.set_rule(price_list=half, pattern="acme/", change_ppm=-500_000, actor="op", now=NOW)
    begins = NOW + timedelta(hours=20)
    for plan, at in ((half, begins), (None, begins + timedelta(hours=1))):
        plans.assign(tenant=tenant, plan=plan, actor="op", now=NOW, begins_at=at)
    snapshot, principal = loaded()
    # when
    paid = {
        after_ms: candidate(snapshot, principal, now=begins + timedelta(milliseconds=after_ms))
        for after_ms in (-1, 0, 1, 3_599_999, 3_600_000)
    }
    # then: what suppliers charge is the same throughout
    assert {after_ms: [p.output_pico for p in each.prices] for after_ms, each in paid.items()} == {
        -1: [PLAN_PICO],
        0: [300_000],
        1: [300_000],
        3_599_999: [300_000],
        3_600_000: [LIST_PICO],
    }
    assert {p.output_pico for each in paid.values() for p in each.cost_prices} == {COST_PICO}


def test_a_key_that_is_looked_up_between_two_snapshots_knows_what_is_to_come(
    tenant: Tenant,
) -> None:
    # given
    begins = NOW + timedelta(hours=1)
    plans.assign(tenant=tenant, plan=None, actor="op", now=NOW, begins_at=begins)
    source = DatabaseSource()
    before = source.find_key(bytes(ApiKey.objects.get().key_hash))
    snapshot = source.load(int(NOW.timestamp() * 1000))
    # when
    found = source.find_key(bytes(ApiKey.objects.get().key_hash))
    # then: also by a process that has loaded nothing yet
    for principal in (before, found):
        assert principal is not None
        shown = [
            candidate(snapshot, principal, now=begins + timedelta(milliseconds=ms)).prices
            for ms in (-1, 0)
        ]
        assert [[p.output_pico for p in prices] for prices in shown] == [[PLAN_PICO], [LIST_PICO]]
