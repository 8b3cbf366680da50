"""Amounts on the admin console's pages: in dollars, or dollars per million tokens, exactly."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from billing.admin import units as admin_units
from billing.credit import balances as credit
from billing.models import (
    CreditGrant,
    PriceList,
    PriceVersion,
    RebateScale,
)
from gateway.models import RoutingPolicy
from tests.gateway.console_rows import offer, served
from tests.people import Person

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def _page(operator: Client, row: Model) -> str:
    name = f"{row._meta.app_label}/{row._meta.model_name}"
    return operator.get(f"/admin/{name}/{row.pk}/change/").content.decode()


def test_a_price_is_dollars_per_million_tokens(admin_client: Client) -> None:
    # given
    offer("acme")
    version = PriceVersion.objects.latest("pk")

    # when
    page = _page(admin_client, version)

    # then
    assert "Input, $ per million tokens" in page
    assert f">{admin_units.dollars_per_million(version.input_pico)}<" in page.replace("\n", "")
    assert "pico" not in _lines(page)


def test_a_usage_event_is_dollars(admin_client: Client, alice: Person) -> None:
    # given
    event = served(alice.tenant, offer("acme"), at=NOW)

    # when
    page = _page(admin_client, event)

    # then
    assert "Tenant cost, $" in page
    assert event.tenant_cost_pico == 212_600_000
    assert "$0.0002126<" in page.replace("\n", "")
    assert "nano" not in _lines(page)


def test_a_grant_says_how_much(admin_client: Client, alice: Person) -> None:
    # given
    grant = credit.grant(tenant=alice.tenant, amount_pico=12_500_000_000_001, reason="gift",
                         created_by="op")  # fmt: skip

    # when
    page = _page(admin_client, CreditGrant.objects.get(pk=grant.pk))

    # then
    assert "Amount, $" in page
    assert "$12.500000000001" in page


def _lines(page: str) -> str:
    """The page's own part, without scripts and links."""
    return page.partition('id="content-main"')[2].partition("<script")[0]


@pytest.mark.parametrize(
    "model",
    [m for m in admin.site._registry if any(admin_units.is_amount(f.name) for f in m._meta.fields)],
    ids=lambda model: model._meta.label_lower,
)
def test_every_amount_has_words_and_a_label_with_its_unit(model: type[Model]) -> None:
    for field in model._meta.fields:
        if not admin_units.is_amount(field.name):
            continue
        # given
        row = model(**{field.name: 1_250_000})

        # when
        line: Any = admin_units.shown(field)

        # then
        label, words = line.short_description, line(row)
        assert label.endswith((", $", ", $ per million tokens", ", $ per hour", ", %"))
        assert not any(raw in label.lower() for raw in ("pico", "nano", "cents", "ppm"))
        expected = {
            "$ per million tokens": "$1.25",
            "$ per hour": "$0.00000125",
            "%": "125 %",
            "$": {"_pico": "$0.00000125", "_nano": "$0.00125", "_cents": "$12500"},
        }[label.rpartition(", ")[2]]
        if isinstance(expected, dict):
            expected = next(v for ending, v in expected.items() if field.name.endswith(ending))
        assert words == expected


def test_a_ceiling_of_a_policy_is_the_same_both_ways(admin_client: Client, alice: Person) -> None:
    # given
    asked = {
        "tenant": alice.tenant.pk,
        "kind": "cheapest",
        "pinned_skus": "[]",
        "providers_allowed": "[]",
        "allow_fallbacks": "on",
        "max_input": "0.150001",
        "max_output": "",
    }

    # when
    answer = admin_client.post("/admin/gateway/routingpolicy/add/", asked)

    # then
    assert answer.status_code == 302
    policy = RoutingPolicy.objects.get()
    assert (policy.max_input_pico, policy.max_output_pico) == (150_001, None)
    page = _page(admin_client, policy)
    assert "Dearest input, $ per million tokens" in page
    assert 'value="0.150001"' in page

    # when: finer than a pico-dollar
    answer = admin_client.post(
        f"/admin/gateway/routingpolicy/{policy.pk}/change/", asked | {"max_input": "0.1500011"}
    )

    # then
    assert answer.status_code == 200
    policy.refresh_from_db()
    assert policy.max_input_pico == 150_001


def test_a_rebates_tiers_are_in_dollars_and_per_cent(admin_client: Client) -> None:
    # given
    plan = PriceList.objects.create(kind=PriceList.Kind.PLAN, name="Volume", slug="volume")
    scale = RebateScale.objects.create(
        plan=plan,
        mode=RebateScale.Mode.GRADUATED,
        tiers=[[1_000 * 10**12, 20_000, 0], [None, 50_000, 0]],
        from_month=NOW.date().replace(day=1),
        recorded_by="op",
        recorded_at=NOW,
    )

    # when
    page = _page(admin_client, scale)

    # then
    assert "to $1000 +2 %; above +5 %" in page
