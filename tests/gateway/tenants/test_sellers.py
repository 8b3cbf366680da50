"""Teams that sell: what they ask, when, what the house keeps, and whose books say what."""

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given

from billing import rating
from billing.books import earnings, ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.errors import PriceRefused
from billing.models import Payout, PriceRule, PriceVersion
from billing.prices.price_books import books as price_books
from billing.prices.price_spans import COST_PRICES
from billing.rates import ALL_DAY, PPM, Rates, Window
from billing.rating import Price
from billing.usage import CanonicalUsage
from gateway.models import Seller
from gateway.tenants import sellers
from gateway.tenants.sellers import SellerRefused
from providers.models import Model, Offer, Provider
from tests import listed
from tests.people import Person

NOW = timezone.now()
SKU = "pool-lab/fox"
TENTH = 100_000


def rates(output_pico: int = 400_001) -> Rates:
    return Rates(
        input_pico=100_001,
        cache_read_pico=50_001,
        cache_write_5m_pico=100_001,
        cache_write_1h_pico=100_001,
        output_pico=output_pico,
        reasoning_pico=output_pico,
    )


@pytest.fixture
def offer(db: None) -> Offer:
    provider = Provider.objects.create(
        slug="pool-lab", name="Lab", kind=Provider.Kind.POOL, wire="openai"
    )
    model = Model.objects.create(slug="fox", name="Fox")
    return Offer.objects.create(
        provider=provider, model=model, sku=SKU, upstream_model="fox", capabilities=["chat"]
    )


@pytest.fixture
def seller(offer: Offer, alice: Person) -> Seller:
    return sellers.register(
        team=alice.team,
        provider=offer.provider,
        house_share_ppm=TENTH,
        actor="op",
        now=NOW - timedelta(days=1),
    )


def ask(seller: Seller, offer_id: int, **changes: Any) -> PriceVersion:
    facts: dict[str, Any] = {
        "rates": rates(),
        "margin_ppm": None,
        "window": ALL_DAY,
        "actor": "alice",
        "now": NOW,
    }
    return sellers.ask(seller=seller, offer_id=offer_id, **{**facts, **changes})


def test_the_house_s_share_is_taken_off_what_the_seller_is_credited(
    seller: Seller, offer: Offer
) -> None:
    # when
    ask(seller, offer.pk)
    # then
    book = price_books(NOW, NOW)[SKU]
    now_ms = int(NOW.timestamp() * 1000)
    assert [p.output_pico for p in book.opening()] == [400_001]
    assert [p.output_pico for p in book.at((COST_PRICES,), now_ms)] == [360_001]


def test_cost_plus_is_the_cost_and_the_margin(seller: Seller, offer: Offer) -> None:
    # when
    version = ask(seller, offer.pk, margin_ppm=250_000)
    # then
    assert (version.input_pico, version.output_pico) == (125_001, 500_001)
    assert version.note == "cost plus 250000 ppm"


def test_hours_on_offer_are_the_only_ones_in_which_it_is_sold(seller: Seller, offer: Offer) -> None:
    # given
    minute = NOW.hour * 60 + NOW.minute
    ask(seller, offer.pk, now=NOW - timedelta(minutes=2))
    # when
    ask(seller, offer.pk, window=Window((minute + 60) % 1440, (minute + 120) % 1440))
    # then
    assert listed.price_at(SKU, NOW) == ()
    assert len(listed.price_at(SKU, NOW + timedelta(minutes=60))) == 1
    ask(seller, offer.pk, now=NOW + timedelta(minutes=61), rates=rates(7))
    assert [p.output_pico for p in listed.price_at(SKU, NOW + timedelta(minutes=62))] == [7]


def test_a_seller_prices_no_offer_but_its_own(seller: Seller, offer: Offer) -> None:
    # given
    other = Provider.objects.create(slug="acme", name="Acme")
    foreign = Offer.objects.create(
        provider=other, model=offer.model, sku="acme/fox", upstream_model="fox"
    )
    # when / then
    for offer_id in (foreign.pk, 10**9, -1):
        with pytest.raises(SellerRefused, match="no such offer"):
            ask(seller, offer_id)
    assert not PriceVersion.objects.exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rates": rates(-1)}, PriceRefused),
        ({"rates": rates(10**12)}, PriceRefused),
        ({"margin_ppm": -1}, SellerRefused),
        ({"margin_ppm": 11 * PPM}, SellerRefused),
        ({"margin_ppm": 0.5}, SellerRefused),
        ({"window": Window(5, 5)}, PriceRefused),
        ({"window": Window(0, 5_000)}, PriceRefused),
    ],
)
def test_an_ask_that_makes_no_sense_leaves_the_old_price(
    seller: Seller, offer: Offer, change: dict[str, Any], error: type[Exception]
) -> None:
    # given
    ask(seller, offer.pk, now=NOW - timedelta(hours=1))
    # when / then
    with pytest.raises(error):
        ask(seller, offer.pk, **change)
    assert [p.output_pico for p in listed.price_at(SKU, NOW)] == [400_001]


@pytest.mark.parametrize("share", [-1, PPM + 1, 0.1, True])
def test_a_share_that_makes_no_sense_registers_nobody(
    offer: Offer, alice: Person, share: Any
) -> None:
    with pytest.raises(SellerRefused, match="between nothing and everything"):
        sellers.register(
            team=alice.team, provider=offer.provider, house_share_ppm=share, actor="op", now=NOW
        )
    assert (Seller.objects.count(), PriceRule.objects.count()) == (0, 0)


def test_a_provider_has_one_seller_and_the_house_s_own_have_none(
    seller: Seller, charlie: Person
) -> None:
    own = Provider.objects.create(slug="in-house", name="Own", kind=Provider.Kind.IN_HOUSE)
    for provider, match in ((seller.provider, "a seller already"), (own, "own workers")):
        with pytest.raises(SellerRefused, match=match):
            sellers.register(
                team=charlie.team, provider=provider, house_share_ppm=0, actor="op", now=NOW
            )


counts = st.integers(0, 10**9)
rate = st.integers(1, 10**10)


@given(counts, counts, counts, rate, rate, rate, st.integers(0, PPM), st.integers(-PPM, PPM))
def test_buyers_pay_the_seller_s_credit_and_the_house_s_margin(
    uncached: int, cached: int, out: int, r_in: int, r_cached: int, r_out: int,
    share: int, discount: int,
) -> None:  # fmt: skip
    # given
    listed = Rates(
        input_pico=r_in, cache_read_pico=r_cached, cache_write_5m_pico=r_in,
        cache_write_1h_pico=r_in, output_pico=r_out, reasoning_pico=r_out,
    )  # fmt: skip
    usage = CanonicalUsage(
        input_tokens=uncached + cached, cache_read_tokens=cached, output_tokens=out
    )
    at = {
        name: rating.rate(usage, Price(version=1, sku=SKU, **dict(found.items())))  # type: ignore[arg-type]
        for name, found in {
            "list": listed,
            "seller": listed.changed(-share),
            "buyer": listed.changed(discount),
        }.items()
    }
    # when
    row = earnings.Earning(
        day=NOW.date(), sku=SKU, requests=1, input_tokens=0, output_tokens=0,
        paid_pico=at["buyer"], credit_pico=at["seller"],
    )  # fmt: skip
    # then
    assert row.paid_pico == row.credit_pico + row.house_pico
    # The seller gets its share of the list price whatever the buyer's discount, to half a
    # pico-dollar per token.
    tokens = uncached + cached + out
    assert abs(at["seller"] * PPM - at["list"] * (PPM - share)) <= tokens * PPM
    assert at["seller"] <= at["list"]


def asked(seller: Seller, sold: Offer, /, **changes: str) -> dict[str, str]:
    return {
        "seller": str(seller.pk), "offer": str(sold.pk), "basis": "asking", "input": "0.2",
        "cached": "", "output": "0.8", "margin": "", "from_hour": "", "to_hour": "", **changes,
    }  # fmt: skip


def test_a_member_of_the_team_asks_a_price_and_sees_it(
    client: Client, alice: Person, seller: Seller, offer: Offer, redis_client: Any
) -> None:
    client.force_login(alice.user)

    client.post("/selling/ask/", asked(seller, offer, basis="cost_plus", margin="50"))

    page = client.get("/selling/").content.decode()
    assert [p.output_pico for p in listed.price_at(SKU, timezone.now())] == [1_200_000]
    assert "Selling</a>" in page
    assert SKU in page


@pytest.mark.parametrize(
    "change",
    [
        {"input": "-1"},
        {"input": "NaN"},
        {"input": "1e400"},
        {"output": "\u0663"},
        {"offer": "999999"},
        {"offer": "1 OR 1=1"},
        {"basis": "cost_plus", "margin": ""},
        {"basis": "gift"},
        {"from_hour": "08:00"},
        {"from_hour": "08:00", "to_hour": "08:00"},
        {"from_hour": "99:00", "to_hour": "08:00"},
    ],
)
def test_what_makes_no_sense_is_told_and_not_sold(
    client: Client,
    alice: Person,
    seller: Seller,
    offer: Offer,
    redis_client: Any,
    change: dict[str, str],
) -> None:
    client.force_login(alice.user)

    answer = client.post("/selling/ask/", asked(seller, offer, **change))

    assert answer.status_code == 200
    assert not PriceVersion.objects.exists()


def test_charlie_sees_and_prices_nothing_of_it(
    client: Client, charlie: Person, seller: Seller, offer: Offer, redis_client: Any
) -> None:
    client.force_login(charlie.user)

    found = [
        client.get("/selling/").status_code,
        client.get(f"/selling/?seller={seller.pk}").status_code,
        client.get(f"/selling/statement.csv?seller={seller.pk}").status_code,
        client.post("/selling/ask/", asked(seller, offer)).status_code,
    ]

    assert found == [404, 404, 404, 404]
    assert not PriceVersion.objects.exists()
    assert "Selling</a>" not in client.get("/overview/", follow=True).content.decode()


def test_the_statement_is_a_month_in_exact_dollars(
    client: Client, alice: Person, seller: Seller, redis_client: Any
) -> None:
    client.force_login(alice.user)

    answer = client.get("/selling/statement.csv")
    refused = [
        client.get("/selling/statement.csv", {"month": month}).status_code
        for month in ("2026-13", "1999-01", "x", "\u0662026-01", "2026-1")
    ]

    head, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert head[0] == "day"
    assert sum((Decimal(row[6]) for row in rows), Decimal()) == 0
    assert refused == [404] * 5


def owe(provider: Provider, cents: int) -> None:
    ledger.post(
        Draft(
            code=Code.USAGE,
            legs=(
                Leg(AccountKey(Kind.COST_OF_SALES, supplier=provider.slug), cents * 10**10),
                Leg(AccountKey(Kind.PROVIDER_PAYABLE, supplier=provider.slug), -cents * 10**10),
            ),
            idempotency_key=f"test:{provider.slug}",
        )
    )


def test_an_operator_records_a_payout_and_the_seller_sees_it(
    admin_client: Client,
    client: Client,
    alice: Person,
    seller: Seller,
    redis_client: Any,
) -> None:
    # given
    owe(seller.provider, 1_500)
    page = "/admin/gateway/seller/"
    asked = {"action": "record_payout", "_selected_action": [seller.pk]}
    sent = {"amount_usd": "12.34", "reference": "bank-7", "paid_on": NOW.date().isoformat()}

    # when it is only looked at, or more than is owed
    assert "$15" in admin_client.post(page, asked).content.decode()
    more = admin_client.post(page, asked | sent | {"_confirm": "1", "amount_usd": "15.01"})
    assert "Nothing was booked: 1500 whole cents are owed" in more.content.decode()
    for wrong in ("-1", "0", "1.001", "NaN", "1e3"):
        admin_client.post(page, asked | sent | {"_confirm": "1", "amount_usd": wrong})
    assert not Payout.objects.exists()

    # and when it is confirmed, twice
    for _ in range(2):
        admin_client.post(page, asked | sent | {"_confirm": "1"})

    # then
    assert Payout.objects.get().created_by == "admin"
    client.force_login(alice.user)
    shown = client.get("/selling/").content.decode()
    assert "bank-7" in shown
    assert "$12.34" in shown
    head, *rows = csv.reader(io.StringIO(client.get("/selling/statement.csv").content.decode()))
    assert head[-2:] == ["paid_out_usd", "payout_reference"]
    assert [row[-2:] for row in rows] == [["12.34", "bank-7"]]
