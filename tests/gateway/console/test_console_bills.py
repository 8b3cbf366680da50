"""A provider's bill in the admin console: uploaded, compared, accepted; and what is no bill."""

from datetime import timedelta
from typing import Final

import pytest
import redis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from billing.books import ledger
from billing.books.ledger import AccountKey, Kind
from billing.models import AuditEntry, ProviderBill, UsageEvent
from tests.gateway.console_rows import offer, served
from tests.people import Person

ADD = "/admin/billing/providerbill/add/"


@pytest.fixture
def operator(admin_client: Client, redis_client: redis.Redis) -> Client:
    return admin_client


def upload(operator: Client, text: str, provider: str) -> str:
    """Where the upload leads; empty where it was refused."""
    file = SimpleUploadedFile("march.csv", text.encode(), content_type="text/csv")
    answer = operator.post(ADD, {"provider": provider, "file": file})
    return answer.get("Location", "")


def test_a_bill_is_compared_by_our_names_of_models_and_accepted(
    operator: Client, alice: Person
) -> None:
    # given
    sold = offer()
    day = timezone.now() - timedelta(days=3)
    event = served(alice.tenant, sold, at=day)
    owed = event.supplier_cost_pico + 10**9
    row = f"{day:%Y-%m-%d},{sold.offer.upstream_model},1204,318,{owed / 10**12:.12f}"
    # when
    page = upload(
        operator,
        f"date,model,input_tokens,output_tokens,cost_usd\n{row}\n",
        sold.offer.provider.slug,
    )
    shown = operator.get(page).content.decode()
    # then
    assert "same tokens, another price" in shown
    assert sold.offer.model.slug in shown
    before = ledger.balance(AccountKey(Kind.PROVIDER_PAYABLE, supplier=sold.offer.provider.slug))
    operator.post(page)
    operator.post(page)
    after = ledger.balance(AccountKey(Kind.PROVIDER_PAYABLE, supplier=sold.offer.provider.slug))
    assert after - before == -(10**9)
    assert ProviderBill.objects.get().accepted_at is not None


RATE: Final = {"currency": "EUR", "usd_per_unit": "1.1", "day": "2026-01-02", "source": "ECB"}
# One day of one model, and what else a seller's export may hold.
ODD: Final = (
    "date,model,input_tokens,output_tokens,cost,currency",
    "{day},{model},1204,318,4.00,USD",
    "{day},{model},1000,200,1.50,EUR",
    "{day},{model},0,0,-0.25,usd",
    "{day},{model},-10,-2,-0.05,USD",
    ",{model},1,2,0.40,USD",
    "{day},,1,2,0.30,USD",
    "{day},{model},-1,2,0.10,USD",
    "{day},{model},1,2,NaN,USD",
    "{day},{model},1,2,1e400,USD",
    "{day},{model},1,2,,USD",
    "{day},{model},1,2",
    "{tomorrow},{model},1,2,0.20,USD",
    "{day},,0,0,0,USD",
)


@pytest.fixture
def odd_bill(operator: Client, alice: Person) -> ProviderBill:
    sold = offer()
    day = timezone.now() - timedelta(days=3)
    served(alice.tenant, sold, at=day)
    text = "\n".join(ODD).format(
        day=f"{day:%Y-%m-%d}",
        tomorrow=f"{day + timedelta(days=4):%Y-%m-%d}",
        model=sold.offer.upstream_model,
    )
    assert upload(operator, text, sold.offer.provider.slug)
    return ProviderBill.objects.get()


def fates(bill: ProviderBill) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in bill.rows.order_by("number"):
        found.setdefault(row.state, []).append(row.number)
    return found


def posted(operator: Client, bill: ProviderBill, **form: object) -> str:
    """What the page says after it."""
    address = f"/admin/billing/providerbill/{bill.pk}/change/"
    return operator.post(address, form, follow=True).content.decode()


def test_every_row_of_a_bill_is_accounted_for(operator: Client, odd_bill: ProviderBill) -> None:
    # then: below nothing is used like all others, what asks nothing waits for nobody
    assert fates(odd_bill) == {
        "used": [2, 4, 5],
        "open": [3, 6, 7, 8, 9, 10, 11, 12, 13],
        "left_out": [14],
    }
    why = dict(odd_bill.rows.values_list("number", "why"))
    assert why[3] == "in EUR, without a rate"
    assert why[6] == "names no day"
    assert why[7] == "model is not a model: ''"
    assert why[8] == "negative input_tokens"
    assert "not a sum of money" in why[9]
    assert "not a sum of money" in why[10]
    assert why[11] == "names no sum"
    assert why[12] == "4 cells for 6 columns"
    assert "has not come" in why[13]
    page = operator.get(f"/admin/billing/providerbill/{odd_bill.pk}/change/").content.decode()
    for words in why.values():
        assert escape(words) in page
    assert "9 rows are neither used, carried nor left out" in page


def test_a_bill_closes_once_each_row_is_decided_and_owes_what_they_come_to(
    operator: Client, odd_bill: ProviderBill
) -> None:
    # given
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=odd_bill.supplier)
    booked = UsageEvent.objects.get().supplier_cost_pico
    before = ledger.balance(payable)
    # when
    assert "9 rows are neither" in posted(operator, odd_bill, do="accept")
    assert "1 rows are in dollars now" in posted(operator, odd_bill, do="rate", **RATE)
    unknown = posted(operator, odd_bill, do="carried", row=[6, 9], note="a fee")
    carried = posted(operator, odd_bill, do="carried", row=[6, 7], note="a fee")
    assert ("cannot be carried" in unknown, "2 rows are decided" in carried) == (True, True)
    assert "6 rows are neither" in posted(operator, odd_bill, do="accept")
    assert ledger.balance(payable) == before
    posted(operator, odd_bill, do="left_out", all="1", note="asked them, not owed")
    posted(operator, odd_bill, do="accept")
    # then: 4.00 + 1.50 EUR − 0.25 − 0.05 + 0.40 + 0.30
    assert before - ledger.balance(payable) == 6_050_000_000_000 - booked
    assert fates(odd_bill) == {
        "used": [2, 3, 4, 5],
        "carried": [6, 7],
        "left_out": [8, 9, 10, 11, 12, 13, 14],
    }
    row = odd_bill.rows.get(number=9)
    assert (row.note, row.decided_by) == ("asked them, not owed", "admin")
    rate_kept = odd_bill.rates.get()
    assert (rate_kept.pico_per_unit, rate_kept.stated_by) == (1_100_000_000_000, "admin")
    actions = AuditEntry.objects.filter(action__startswith="provider_bill.")
    assert sorted(actions.values_list("action", flat=True)) == [
        "provider_bill.accept",
        "provider_bill.carried",
        "provider_bill.left_out",
        "provider_bill.rate",
    ]
    # what is accepted stands
    assert "accepted before" in posted(operator, odd_bill, do="left_out", row=[2], note="no")


@pytest.mark.parametrize(
    "form",
    [
        {"do": "left_out", "row": [2], "note": "used rows are used"},
        {"do": "left_out", "row": [999], "note": "no such row"},
        {"do": "left_out", "row": ["x", "-1", "\u0661"], "note": "none"},
        {"do": "left_out", "row": [6], "note": " "},
        {"do": "carried", "all": "1", "note": "unknown sums"},
        {"do": "used", "row": [6], "note": "by decree"},
        {"do": "rate", **RATE, "currency": "GBP"},
        {"do": "rate", **RATE, "usd_per_unit": "0"},
        {"do": "rate", **RATE, "usd_per_unit": "-1"},
        {"do": "rate", **RATE, "usd_per_unit": "NaN"},
        {"do": "rate", **RATE, "day": "2999-01-01"},
        {"do": "rate", **RATE, "source": ""},
        {"do": "else"},
    ],
)
def test_what_cannot_be_decided_moves_nothing(
    form: dict[str, object], operator: Client, odd_bill: ProviderBill
) -> None:
    before = list(odd_bill.rows.order_by("number").values())
    posted(operator, odd_bill, **form)
    assert list(odd_bill.rows.order_by("number").values()) == before
    assert odd_bill.rates.count() == 0


def test_a_bill_issued_again_and_what_no_row_tells_are_accepted_on_the_page(
    operator: Client, alice: Person
) -> None:
    # given: a row told twice, and half a dollar on the document only
    sold = offer()
    day = timezone.now() - timedelta(days=3)
    served(alice.tenant, sold, at=day)
    slug = sold.offer.provider.slug
    row = f"{day:%Y-%m-%d},{sold.offer.upstream_model},1204,318,4.00"
    head = "date,model,input_tokens,output_tokens,cost_usd"
    file = SimpleUploadedFile("a.csv", f"{head}\n{row}\n{row}\n".encode())
    operator.post(ADD, {"provider": slug, "file": file, "total_usd": "8.50"})
    first = ProviderBill.objects.get()
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=slug)
    booked = UsageEvent.objects.get().supplier_cost_pico
    before = ledger.balance(payable)
    # when
    page = operator.get(f"/admin/billing/providerbill/{first.pk}/change/").content.decode()
    assert "the same as line 2" in page
    assert "Use them" in page
    shown = posted(operator, first, do="used", row=[3], note="two calls")
    assert "No row of the file tells of" in shown
    assert "somebody says" in posted(operator, first, do="rest", note=" ")
    assert "0.5" in posted(operator, first, do="rest", note="a fee")
    posted(operator, first, do="accept")
    # then
    assert before - ledger.balance(payable) == 8_500_000_000_000 - booked
    # and the one that corrects it says what that one posted
    assert upload(operator, f"{head}\n{row}\n", slug)
    again = ProviderBill.objects.latest("pk")
    page = operator.get(f"/admin/billing/providerbill/{again.pk}/change/").content.decode()
    assert "Accept instead of what was accepted" in page
    assert "covers some of these days" in posted(operator, again, do="accept")
    posted(operator, again, do="instead")
    assert before - ledger.balance(payable) == 4_000_000_000_000 - booked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\x00",
        "a,b\n1,2\n",
        "date,model,input_tokens,output_tokens,cost_usd\n,m,1,2,0.1\n",
        "date,model,input_tokens,output_tokens,cost_usd,cost_usd\n2026-03-01,m,1,2,0.1,0.2\n",
    ],
)
def test_what_is_no_bill_is_refused(text: str, operator: Client, alice: Person) -> None:
    slug = offer().offer.provider.slug
    assert upload(operator, text, slug) == ""
    assert ProviderBill.objects.count() == 0
