"""Pricing in the admin console: hours, plans, corrections; bad input moves nothing."""

import html
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.models import (
    Adjustment,
    PriceList,
    PriceRule,
    PriceVersion,
    RebateScale,
    ReRating,
    UsageEvent,
)
from billing.prices import plans
from tests.gateway.console_rows import offer, served
from tests.people import Person

NOW = timezone.now()


@pytest.fixture
def operator(client: Client, admin_user: Any, redis_client: Any) -> Client:
    client.force_login(admin_user)
    return client


def moment(name: str, when: Any) -> dict[str, str]:
    return {f"{name}_0": f"{when:%Y-%m-%d}", f"{name}_1": f"{when:%H:%M:%S}"}


def test_a_price_for_some_hours_is_published_beside_the_one_of_all_day(operator: Client) -> None:
    sold = offer()
    asked = {
        "sku": sold.sku, "input": "0.1", "output": "0.2", "from_hour": "16:30", "to_hour": "00:30",
        "input_audio": "7.5", "request": "0.005", "_publish": "1",
    }  # fmt: skip

    operator.post("/admin/billing/priceversion/add/", asked)

    made = PriceVersion.objects.get(from_minute=990, to_minute=30)
    assert (made.output_pico, made.input_audio_pico) == (200_000, 7_500_000)
    assert made.request_pico == 5_000_000_000
    assert PriceVersion.objects.filter(during__endswith=None).count() == 2


@pytest.mark.parametrize(
    "change",
    [
        {"input": "-1"},
        {"input": "NaN"},
        {"input": "Infinity"},
        {"input": "1e400"},
        {"input": "1e-3"},
        {"input": "\u0661\u0662"},  # Arabic digits
        {"input": "\uff11"},  # a full-width one
        {"input": "0.1234567"},
        {"input": "EUR 3"},
        {"output": ""},
        {"sku": "nobody/sells-this"},
        {"sku": "a\x00b"},
        {"context_over": "-5"},
        {"context_over": "99999999999"},
        {"service_tier": "9"},
        {"from_hour": "16:30"},
        {"from_hour": "16:30", "to_hour": "16:30"},
        {"from_hour": "25:00", "to_hour": "26:00"},
        {"valid_from_0": "2027-02-29", "valid_from_1": "00:00"},
        {"valid_from_0": "2020-01-01", "valid_from_1": "00:00"},
    ],
)
def test_a_price_that_makes_no_sense_is_not_published(
    operator: Client, change: dict[str, str]
) -> None:
    sold = offer()
    asked = {"sku": sold.sku, "input": "0.1", "output": "0.2", "_publish": "1"}

    answer = operator.post("/admin/billing/priceversion/add/", {**asked, **change}, follow=True)

    assert answer.status_code == 200
    assert PriceVersion.objects.count() == 1


def test_a_discount_is_set_replaced_and_ended(operator: Client) -> None:
    sold = offer()
    operator.post(
        "/admin/billing/pricelist/add/", {"kind": "plan", "name": "Startup", "slug": "startup"}
    )
    plan = PriceList.objects.get(slug="startup")
    asked = {"price_list": str(plan.pk), "pattern": "", "percent": "-20"}

    operator.post("/admin/billing/pricerule/add/", asked)
    operator.post("/admin/billing/pricerule/add/", {**asked, "percent": "-12.5"})

    rule = PriceRule.objects.get(ended_at=None)
    version = PriceVersion.objects.get(price_list=plan, during__endswith=None)
    assert (rule.change_ppm, version.change_ppm) == (-125_000, -125_000)
    assert version.input_pico * 8 == sold.version.input_pico * 7
    operator.post(
        "/admin/billing/pricerule/", {"action": "end_rules", "_selected_action": str(rule.pk)}
    )
    assert not PriceRule.objects.filter(ended_at=None).exists()
    assert not PriceVersion.objects.filter(price_list=plan, during__endswith=None).exists()


def test_a_rule_that_matches_no_price_is_refused_with_what_would(operator: Client) -> None:
    offer("acme", "swift-1")
    offer("other", "swift-2")
    plan = PriceList.objects.create(slug="startup", name="Startup")
    asked = {"price_list": str(plan.pk), "pattern": "swift-1", "percent": "-20"}

    for button in ("_preview", "_save"):
        answer = operator.post("/admin/billing/pricerule/add/", {**asked, button: "1"}, follow=True)
        shown = html.unescape(answer.content.decode())
        assert "no price matches 'swift-1'; these do by model: acme/swift-1" in shown
        assert "by seller: acme/, other/" in shown

    assert (PriceRule.objects.count(), PriceVersion.objects.count()) == (0, 2)


def test_a_rule_s_preview_says_old_and_new_prices_and_who_pays(
    operator: Client, alice: Person
) -> None:
    offer("acme", "swift-1", input_pico=1_000_000, output_pico=4_000_000)
    plan = PriceList.objects.create(slug="startup", name="Startup")
    plans.assign(tenant=alice.tenant, plan=plan, actor="op", now=NOW)
    asked = {"price_list": str(plan.pk), "pattern": "acme/", "percent": "-20", "_preview": "1"}

    shown = operator.post("/admin/billing/pricerule/add/", asked).content.decode()

    for expected in ("1 price would follow", "acme/swift-1", "0.8", "3.2", alice.tenant.name):
        assert expected in shown
    assert (PriceRule.objects.count(), PriceVersion.objects.count()) == (0, 1)


@pytest.mark.parametrize("percent", ["-101", "1001", "NaN", "1e400", "", "-100"])
def test_a_discount_that_makes_no_sense_changes_nothing(operator: Client, percent: str) -> None:
    offer()
    plan = PriceList.objects.create(slug="startup", name="Startup")

    answer = operator.post(
        "/admin/billing/pricerule/add/",
        {"price_list": str(plan.pk), "pattern": "", "percent": percent},
        follow=True,
    )

    assert answer.status_code == 200
    assert (PriceRule.objects.count(), PriceVersion.objects.count()) == (0, 1)


def correction(sku: str, **changes: str) -> dict[str, str]:
    return {
        "sku": sku, "input": "0.05", "output": "0.1", "reason": "published by mistake",
        **moment("since", NOW - timedelta(hours=1)), **moment("until", NOW + timedelta(seconds=1)),
        **changes,
    }  # fmt: skip


def test_a_correction_is_shown_before_it_is_posted(
    operator: Client, alice: Person, transactional_db: None
) -> None:
    sold = offer()
    served(alice.tenant, sold, at=NOW - timedelta(minutes=5))
    paid = UsageEvent.objects.get().tenant_cost_pico

    page = operator.post("/admin/billing/rerating/add/", {**correction(sold.sku), "_preview": "1"})

    (name, difference) = page.context["shown"].rows[0]
    assert (name, difference.charged_pico) == (alice.tenant.name, paid)
    assert (ReRating.objects.count(), Adjustment.objects.count()) == (0, 0)

    operator.post("/admin/billing/rerating/add/", {**correction(sold.sku), "_post": "1"})
    grant = Adjustment.objects.get().grant
    assert grant is not None
    assert int(grant.amount_pico) == difference.credit_pico > 0
    assert UsageEvent.objects.get().tenant_cost_pico == paid


def test_a_correction_says_whose_events_it_does_not_touch(
    operator: Client, alice: Person, charlie: Person, transactional_db: None
) -> None:
    # given: one that it corrects, and two of hours that have a price of their own
    sold = offer()
    served(alice.tenant, sold, at=NOW - timedelta(minutes=5))
    hours = {"from_hour": "01:00", "to_hour": "02:00", "input": "1", "output": "1"}
    operator.post("/admin/billing/priceversion/add/", {"sku": sold.sku, **hours, "_publish": "1"})
    of_hours = replace(sold, version=PriceVersion.objects.get(from_minute=60))
    for _ in range(2):
        charged = served(charlie.tenant, of_hours, at=NOW - timedelta(minutes=5))
    # when
    page = operator.post("/admin/billing/rerating/add/", {**correction(sold.sku), "_preview": "1"})
    # then
    assert [(name, d.events) for name, d in page.context["shown"].rows] == [(alice.tenant.name, 1)]
    ((name, left),) = page.context["shown"].untouched
    assert (name, left.why, left.events) == (
        charlie.tenant.name, "of another tier, input size or hours", 2,
    )  # fmt: skip
    assert left.charged_pico == 2 * charged.tenant_cost_pico
    assert "What this does not touch" in page.content.decode()
    assert not ReRating.objects.exists()


def test_a_price_that_begins_in_the_past_says_who_was_charged_since(
    operator: Client, alice: Person, charlie: Person, transactional_db: None
) -> None:
    # given
    sold = offer()
    for person in (alice, alice, charlie):
        served(person.tenant, sold, at=NOW - timedelta(minutes=5))
    asked = {"sku": sold.sku, "input": "0.1", "output": "0.2", "_publish": "1"}
    # when
    answer = operator.post(
        "/admin/billing/priceversion/add/",
        {**asked, **moment("valid_from", NOW - timedelta(hours=1))},
        follow=True,
    )
    # then
    said = answer.content.decode()
    assert "correct a period instead" in said
    assert f"{alice.tenant.name}: 2 for $" in said
    assert f"{charlie.tenant.name}: 1 for $" in said
    assert PriceVersion.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"input": "-1"},
        {"output": "NaN"},
        {"reason": ""},
        {"until_0": "2020-01-01"},
        {"until_0": "2999-01-01"},
        {"since_0": "2027-02-29"},
    ],
)
def test_a_correction_that_makes_no_sense_posts_nothing(
    operator: Client, alice: Person, transactional_db: None, change: dict[str, str]
) -> None:
    sold = offer()
    served(alice.tenant, sold, at=NOW - timedelta(minutes=5))

    answer = operator.post(
        "/admin/billing/rerating/add/", {**correction(sold.sku), **change, "_post": "1"}
    )

    assert answer.status_code == 200
    assert (ReRating.objects.count(), Adjustment.objects.count()) == (0, 0)


def rebate(plan: PriceList, lines: str) -> dict[str, str]:
    return {
        "plan": str(plan.pk), "mode": "volume", "from_month": f"{NOW:%Y-%m}-01", "lines": lines,
    }  # fmt: skip


def test_a_plan_s_tiers_are_entered_a_line_each(operator: Client) -> None:
    plan = PriceList.objects.create(slug="startup", name="Startup")

    operator.post("/admin/billing/rebatescale/add/", rebate(plan, "1000, 2\n10000.5, 5\n-, 8, 100"))

    assert RebateScale.objects.get().tiers == [
        [1_000 * 10**12, 20_000, 0],
        [10_000_500_000_000_000, 50_000, 0],
        [None, 80_000, 100 * 10**12],
    ]


@pytest.mark.parametrize(
    "lines",
    ["", "1000", "1000, 2", "-, 101", "-, -1", "-, NaN", "-, 1e400", "-, \u0665", "a, b",
     "-, 1, 2, 3", "5, 1\n5, 2\n-, 3", "-, 1\n" * 21],
)  # fmt: skip
def test_tiers_that_make_no_sense_are_not_set(operator: Client, lines: str) -> None:
    plan = PriceList.objects.create(slug="startup", name="Startup")

    answer = operator.post("/admin/billing/rebatescale/add/", rebate(plan, lines), follow=True)

    assert answer.status_code == 200
    assert not RebateScale.objects.exists()
