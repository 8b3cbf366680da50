"""Discounts and margins: quantised in versions of their own, which follow every list price."""

from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import given

from billing.errors import PriceRefused
from billing.models import AuditEntry, PriceList, PriceRule, PriceVersion, Tenant
from billing.prices import lists as price_lists
from billing.prices import plans, price_books
from billing.prices import versions as prices
from billing.prices.price_spans import COST_PRICES, PriceBook
from billing.rates import PPM, Rates, Window
from tests.billing.prices.test_prices import SKU, publish

NOW = timezone.now()
LONG_AGO = NOW - timedelta(days=30)
HOUR = timedelta(hours=1)
FIFTH_OFF = -200_000


@pytest.fixture
def plan(db: None) -> PriceList:
    return PriceList.objects.create(slug="startup", name="Startup")


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant.objects.create(slug="aurora", name="Aurora")


def rule(
    price_list: PriceList, change_ppm: int | None, *, pattern: str = "", now: datetime = NOW
) -> int:
    return price_lists.set_rule(
        price_list=price_list, pattern=pattern, change_ppm=change_ppm, actor="op", now=now
    )


def book(now: datetime = NOW, sku: str = SKU) -> PriceBook:
    return price_books.books(now, now + timedelta(days=2))[sku]


def output(price_list: PriceList | None, when: datetime = NOW, sku: str = SKU) -> list[int]:
    lists = () if price_list is None else (price_list.pk,)
    found = book(when, sku).at(lists, int(when.timestamp() * 1000))
    return [price.output_pico for price in found]


def test_a_plan_pays_every_price_times_one_minus_the_discount(plan: PriceList) -> None:
    # given
    publish(LONG_AGO, input_audio_pico=1_000_001, request_pico=3)
    publish(LONG_AGO, service_tier=2, output_pico=1_200_000)
    # when
    made = rule(plan, FIFTH_OFF)
    # then
    assert made == 2
    default, priority = PriceVersion.objects.filter(price_list=plan).order_by("service_tier")
    assert (default.input_pico, default.output_pico) == (120_000, 480_000)
    assert (default.input_audio_pico, default.request_pico) == (800_001, 2)  # .8 and 2.4
    assert (default.input_image_pico, priority.output_pico) == (None, 960_000)
    assert (default.change_ppm, default.made_from.output_pico) == (FIFTH_OFF, 600_000)
    assert (output(plan), output(None)) == ([480_000, 960_000], [600_000, 1_200_000])


def test_the_first_list_that_has_a_price_counts(plan: PriceList, tenant: Tenant) -> None:
    # given
    own = PriceList.objects.create(kind="tenant", tenant=tenant, slug="own", name="Own")
    publish(LONG_AGO)
    publish(LONG_AGO, sku_code="acme/other")
    rule(plan, FIFTH_OFF)
    rule(own, -500_000, pattern=SKU)
    plans.assign(tenant=tenant, plan=plan, actor="op", now=NOW)
    # when
    lists = plans.lists_of(tenant.pk, NOW)
    # then
    now_ms = int(NOW.timestamp() * 1000)
    assert lists == (own.pk, plan.pk)
    assert [p.output_pico for p in book().at(lists, now_ms)] == [300_000]
    assert [p.output_pico for p in book(sku="acme/other").at(lists, now_ms)] == [480_000]
    assert AuditEntry.objects.filter(action="tenant.plan", tenant=tenant).count() == 1


@pytest.mark.parametrize(
    ("patterns", "change"),
    [
        ({"": 1, "acme/": 2, SKU: 3}, 3),
        ({"": 1, "acme/": 2}, 2),
        ({"": 1, "acme": 2}, 1),
        ({"other/": 1}, None),
        ({"acme/swift": 4}, None),
    ],
)
def test_the_most_exact_rule_counts(patterns: dict[str, int], change: int | None) -> None:
    rules = [PriceRule(pattern=pattern, change_ppm=ppm) for pattern, ppm in patterns.items()]
    assert price_lists.change_for(rules, SKU) == change


def test_a_new_list_price_brings_its_lists_along(plan: PriceList) -> None:
    # given
    publish(LONG_AGO)
    rule(plan, FIFTH_OFF)
    # when
    publish(NOW + HOUR, output_pico=700_000)
    # then
    assert output(plan, NOW) == [480_000]
    assert output(plan, NOW + HOUR) == [560_000]
    assert PriceVersion.objects.filter(price_list=plan).count() == 2


def test_hours_and_lists_together(plan: PriceList) -> None:
    # given
    minute = NOW.hour * 60 + NOW.minute
    publish(LONG_AGO)
    publish(LONG_AGO, window=Window(minute, (minute + 1) % 1440), output_pico=300_000)
    # when
    rule(plan, FIFTH_OFF)
    # then
    assert output(plan, NOW) == [240_000]
    assert output(plan, NOW + HOUR) == [480_000]


def test_a_changed_rule_holds_from_its_moment_also_for_a_price_that_has_not_begun(
    plan: PriceList,
) -> None:
    # given
    publish(LONG_AGO)
    rule(plan, FIFTH_OFF, now=NOW - HOUR)
    publish(NOW + HOUR, output_pico=700_000)
    # when
    changed = rule(plan, -500_000, now=NOW)
    # then
    assert changed == 4  # two ended, of which one had not begun; two made
    assert output(plan, NOW - timedelta(minutes=1)) == [480_000]
    assert output(plan, NOW) == [300_000]
    assert output(plan, NOW + HOUR) == [350_000]


def test_an_ended_rule_leaves_the_list_price(plan: PriceList) -> None:
    # given
    publish(LONG_AGO)
    rule(plan, FIFTH_OFF, now=NOW - HOUR)
    rule(plan, 100_000, pattern=SKU, now=NOW - HOUR / 2)
    # when / then
    assert output(plan, NOW) == [660_000]
    rule(plan, None, pattern=SKU, now=NOW)
    assert output(plan, NOW) == [480_000]
    rule(plan, None, now=NOW + HOUR)
    assert output(plan, NOW + HOUR) == [600_000]
    assert [r.ended_at for r in PriceRule.objects.order_by("pk")] == [NOW + HOUR, NOW]


def test_a_withdrawn_sku_is_sold_on_no_list(plan: PriceList) -> None:
    # given
    publish(LONG_AGO)
    rule(plan, FIFTH_OFF, now=NOW - HOUR)
    publish(NOW + HOUR, output_pico=700_000)
    # when
    prices.withdraw(sku_code=SKU, actor="op", at=NOW)
    # then
    assert price_books.books(NOW, NOW + 2 * HOUR) == {}


def test_a_free_sku_stays_free_and_a_discount_of_everything_makes_one_free(
    plan: PriceList,
) -> None:
    # given
    publish(LONG_AGO)
    # when
    rule(plan, -PPM, pattern=SKU)
    # then
    version = PriceVersion.objects.get(price_list=plan)
    assert (version.free, version.output_pico) == (True, 0)


def test_what_suppliers_charge_is_a_list_of_its_own(plan: PriceList) -> None:
    # given
    publish(LONG_AGO)
    # when
    rule(price_lists.cost_list(), -100_000, pattern="acme/")
    rule(plan, 50_000)
    # then
    now_ms = int(NOW.timestamp() * 1000)
    assert [p.output_pico for p in book().at((COST_PRICES,), now_ms)] == [540_000]
    assert output(plan) == [630_000]
    assert output(None) == [600_000]


@pytest.mark.parametrize(
    ("pattern", "change", "match"),
    [
        ("", -PPM, "not everything is free"),
        ("", -PPM - 1, "between"),
        ("", 10 * PPM + 1, "between"),
        ("", 1.5, "between"),
        ("", True, "between"),
        ("a" * 201, 1, "pattern"),
        ("a\x00", 1, "pattern"),
    ],
)
def test_a_rule_that_makes_no_sense_changes_nothing(
    plan: PriceList, pattern: str, change: Any, match: str
) -> None:
    # given
    publish(LONG_AGO)
    # when / then
    with pytest.raises(PriceRefused, match=match):
        rule(plan, change, pattern=pattern)
    assert (PriceRule.objects.count(), PriceVersion.objects.count()) == (0, 1)
    assert AuditEntry.objects.count() == 0


def test_a_margin_beyond_every_bound_changes_nothing(plan: PriceList) -> None:
    # given
    publish(LONG_AGO, output_pico=99_000 * 10**6)
    # when / then
    with pytest.raises(PriceRefused, match="output_pico is out of bounds"):
        rule(plan, 100_000)
    assert (PriceRule.objects.count(), PriceVersion.objects.count()) == (0, 1)


def test_only_a_plan_is_for_tenants_to_share(tenant: Tenant) -> None:
    with pytest.raises(PriceRefused, match="only a plan"):
        plans.assign(tenant=tenant, plan=price_lists.cost_list(), actor="op", now=NOW)
    assert plans.of(tenant, NOW) is None


def test_postgres_keeps_rules_and_begun_versions(plan: PriceList) -> None:
    # given
    publish(LONG_AGO)
    rule(plan, FIFTH_OFF, now=NOW - HOUR)
    # when / then
    with pytest.raises(IntegrityError, match="only changes by ending"), transaction.atomic():
        PriceRule.objects.update(change_ppm=1)
    with pytest.raises(IntegrityError, match="only changes by ending"), transaction.atomic():
        PriceRule.objects.all().delete()
    with pytest.raises(IntegrityError, match="never deleted"), transaction.atomic():
        PriceVersion.objects.filter(price_list=plan).delete()


all_rates = st.builds(
    Rates,
    **{name: st.integers(0, 10**10) for name in Rates.__slots__[:6]},
    input_audio_pico=st.none() | st.integers(0, 10**10),
    request_pico=st.integers(0, 10**13),
)


@given(all_rates, st.integers(-PPM, 10 * PPM))
def test_a_changed_rate_is_off_by_half_a_pico_dollar_at_most_and_never_free_by_rounding(
    rates: Rates, change_ppm: int
) -> None:
    changed = dict(rates.changed(change_ppm).items())
    for name, value in rates.items():
        if value is None:
            assert changed[name] is None
            continue
        exact_ppm = value * (PPM + change_ppm)
        assert changed[name] is not None
        assert abs(changed[name] * PPM - exact_ppm) * 2 <= PPM or changed[name] == 1
        assert (changed[name] == 0) == (value == 0 or change_ppm == -PPM)
