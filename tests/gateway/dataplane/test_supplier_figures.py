"""With a margin of 20 %, what we owe suppliers and what we earn stands on nothing that a tenant
sees: every page, export and call of a tenant is fetched and searched for it, in every form."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

import pytest
import redis
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from billing import rating
from billing.models import PriceList, PriceVersion, UsageEvent
from billing.money import nano_ceil, usd, usd_json
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices.versions import as_price
from billing.usage import CanonicalUsage
from gateway.api.shapes.money_fields import usd_per_million_text
from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console import figures
from gateway.console.urls import urlpatterns
from gateway.tenants import keys
from tests.billing.invoicing.test_invoice_pdf import text_of
from tests.gateway import belongings
from tests.gateway.belongings import Belongings
from tests.gateway.console_rows import Priced, offer
from tests.people import Person

MARGIN_PPM = 200_000
# What suppliers charge, against their list prices.
BELOW_LIST_PPM = -130_000
TOKENS = {"input_tokens": 1_204_003, "cached_tokens": 700_001, "output_tokens": 318_007}
RATES = ("input_pico", "cache_read_pico", "output_pico")
# Streams of marks, of which there is no end; they hold ids and times.
FEEDS = ("live/home/", "live/board/", "live/requests/")
# The house's own calls, and calls of workers.
OF_THE_HOUSE = ("v1/sellers/", "v1/payouts/", "workers/")


@dataclass(frozen=True)
class House:
    """A tenant on a plan, what it has, and the sums that it must not see."""

    things: Belongings
    sold: Priced
    secret_pico: frozenset[int]
    secret_rates_pico: frozenset[int]
    open_pico: frozenset[int]


def usage() -> CanonicalUsage:
    return CanonicalUsage(
        input_tokens=TOKENS["input_tokens"],
        cache_read_tokens=TOKENS["cached_tokens"],
        output_tokens=TOKENS["output_tokens"],
    )


def version_on(price_list: PriceList, listed: PriceVersion) -> PriceVersion:
    return PriceVersion.objects.get(price_list=price_list, made_from=listed)


@pytest.fixture(params=["suppliers charge their list prices", "suppliers charge less"])
def house(request: pytest.FixtureRequest, alice: Person, redis_client: redis.Redis) -> House:
    now = timezone.now()
    listed = offer(input_pico=100_003, cached_pico=50_021, output_pico=400_009)
    plan = PriceList.objects.create(kind=PriceList.Kind.PLAN, slug="retail", name="Retail")
    by = {"actor": "ada", "now": now}
    price_lists.set_rule(price_list=plan, pattern="", change_ppm=MARGIN_PPM, **by)
    plans.assign(tenant=alice.tenant, plan=plan, **by)
    alice.tenant.refresh_from_db()
    paid, cost = version_on(plan, listed.version), listed.version
    is_below = request.param == "suppliers charge less"
    if is_below:
        price_lists.set_rule(
            price_list=price_lists.cost_list(), pattern="", change_ppm=BELOW_LIST_PPM, **by
        )
        cost = version_on(price_lists.cost_list(), listed.version)
    tenant_pico, supplier_pico = (rating.rate(usage(), as_price(v)) for v in (paid, cost))
    things = belongings.make(
        alice,
        Priced(listed.offer, paid),
        redis_client,
        supplier_share=Decimal(supplier_pico) / tenant_pico,
        ranking=ranking(tenant_pico),
        **TOKENS,
    )
    events = list(UsageEvent.objects.all())
    assert {event.tenant_cost_pico for event in events} == {tenant_pico}
    supplied = {event.supplier_cost_pico for event in events}
    of_one = supplied | {tenant_pico - pico for pico in supplied}
    return House(
        things,
        listed,
        secret_pico=frozenset(of_one | {2 * pico for pico in of_one}),
        # List prices are public; what differs from them is not.
        secret_rates_pico=frozenset(getattr(cost, name) for name in RATES)
        if is_below
        else frozenset(),
        open_pico=frozenset({tenant_pico, 2 * tenant_pico}),
    )


def ranking(expected_pico: int) -> dict[str, object]:
    text = usd_json(expected_pico).decode()
    return {
        "model": "small",
        "policy": "cheapest",
        "expected_tokens": {"input": 1, "output": 1},
        "candidates": [
            {"rank": 1, "offer": "acme/small", "expected_usd": text, "greatest_usd": text,
             "why": "the lowest expected cost"}
        ],
        "rejections": [],
    }  # fmt: skip


def sums_as_text(pico: int) -> Iterator[str]:
    """A sum in every form in which this project writes sums."""
    yield from (str(pico), f"{pico:,}", str(nano_ceil(pico)), f"{nano_ceil(pico):,}")
    yield from (f"{usd(pico):f}", usd_json(pico).decode(), figures.usd_exact(pico))
    yield figures.usd(pico)


def rates_as_text(pico: int) -> Iterator[str]:
    yield from (str(pico), f"{pico:,}", usd_json(pico).decode(), usd_per_million_text(pico))
    yield from (figures.per_million(pico), figures.per_million_exact(pico))


def secrets_of(house: House) -> set[str]:
    secret = {text for pico in house.secret_pico for text in sums_as_text(pico)}
    secret |= {text for pico in house.secret_rates_pico for text in rates_as_text(pico)}
    shown = {text for pico in house.open_pico for text in sums_as_text(pico)}
    return {text for text in secret - shown if len(text) > 5}


def body_of(answer: HttpResponse) -> str:
    if answer.headers.get("Content-Type") == "application/pdf":
        return text_of(answer.content)
    return answer.content.decode()


def addresses(things: Belongings) -> Iterable[str]:
    pages = belongings.routes_of(urlpatterns)
    yield from (f"/{things.address(route)}" for route in pages if route not in FEEDS)
    calls = belongings.routes_of(api_urlpatterns)
    yield from (
        f"/api/{things.address(route)}" for route in calls if not route.startswith(OF_THE_HOUSE)
    )
    model = things.ids["slug"]
    yield from (
        f"/models/{model}/?mix=mine",
        f"/models/{model}/offers.csv?mix=mine",
        f"/requests/{things.refused_id}/",
        f"/api/v1/prices/?sku=acme/{model}",
        "/overview/?span=day",
        f"/billing/?month={timezone.now():%Y-%m}",
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by", ["a session", "a management key"])
def test_nothing_that_a_tenant_fetches_has_a_suppliers_figure(
    by: str, house: House, client: Client
) -> None:
    # given
    headers = {}
    if by == "a session":
        client.force_login(house.things.person.user)
    else:
        made = keys.issue(
            tenant=house.things.person.tenant,
            name="reads",
            created_by="alice",
            now=timezone.now(),
            scopes=(keys.MANAGEMENT,),
        )
        headers = {"Authorization": f"Bearer {made.plain}"}
    secrets, told, fetched = secrets_of(house), [], 0

    # when
    for address in addresses(house.things):
        answer = client.get(address, headers=headers)
        assert answer.status_code < 500, address
        if answer.status_code != 200:
            continue
        fetched += 1
        body = body_of(answer)
        told += [(address, text) for text in secrets if text in body]
        told += [(address, name) for name in ("payable", "supplier cost") if name in body.lower()]

    # then
    assert told == []
    assert fetched >= (45 if by == "a session" else 25)


@pytest.mark.django_db(transaction=True)
def test_the_requests_page_has_the_tenants_own_entries_and_no_others(
    house: House, client: Client
) -> None:
    client.force_login(house.things.person.user)

    page = client.get(f"/requests/{house.things.request_id}/")

    [posted] = page.context["record"].transfers
    assert [(e.account.kind, e.amount_pico) for e in posted.entries] == [
        ("tenant_credit", min(house.open_pico))
    ]


@pytest.mark.django_db(transaction=True)
def test_no_margin_is_a_saving_at_the_very_same_seller(house: House, client: Client) -> None:
    client.force_login(house.things.person.user)

    overview = client.get("/overview/")
    options = {o.kind: o.effect for o in client.get("/routing/").context["options"]}

    assert overview.context["savings"] == []
    assert (options["cheapest"].cost_pico, options["cheapest"].change_percent) == (
        min(house.open_pico),
        0,
    )


@pytest.mark.django_db(transaction=True)
def test_what_is_cheaper_elsewhere_is_so_at_the_tenants_own_prices(
    house: House, client: Client
) -> None:
    # given another seller at three quarters of the price
    other = offer("zeta", "small", input_pico=75_000, cached_pico=37_500, output_pico=300_000)
    client.force_login(house.things.person.user)
    plan = PriceList.objects.get(slug="retail")
    there = rating.rate(usage(), as_price(version_on(plan, other.version)))

    # when
    [saving] = client.get("/overview/").context["savings"]

    # then
    assert (saving.offer, saving.saved_pico) == ("Zeta", min(house.open_pico) - there)
