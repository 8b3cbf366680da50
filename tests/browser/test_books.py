"""An operator's month in Chromium: approve prices, issue an invoice, hold a bill against the books.

With `TOKENHOUSE_PICTURES=docs/img` each page that it passes is kept there as a picture.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
import redis
from django.utils import timezone
from playwright.sync_api import Page

from billing.books import ledger
from billing.books.ledger import AccountKey, Kind
from billing.credit import balances as credit
from billing.invoicing import calendar_months
from billing.models import BillingProfile, Invoice, PriceProposal, UsageEvent
from billing.money import usd_json
from billing.prices import imports as price_import
from billing.prices import proposals as price_proposals
from billing.prices.imports import DatedRates
from billing.rates import Rates
from tests.browser.conftest import Visit
from tests.gateway.console_rows import Priced, offer, served
from tests.people import Person

pytestmark = pytest.mark.browser

PICTURES: Final = os.environ.get("TOKENHOUSE_PICTURES", "")
MODELS: Final = {"swift-1": (250_000, 2_000_000), "swift-1-mini": (80_000, 400_000)}


@pytest.fixture
def operator(alice: Person, redis_client: redis.Redis) -> Person:
    alice.user.is_staff = alice.user.is_superuser = True
    alice.user.save()
    return alice


def keep(page: Page, name: str) -> None:
    if PICTURES:
        page.evaluate("document.fonts.ready.then(() => true)")
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def month_of(person: Person) -> tuple[datetime, list[Priced]]:
    """Last month's requests of two models, their prices, and who is to be billed."""
    BillingProfile.objects.create(
        tenant=person.tenant,
        legal_name="Aurora GmbH",
        address="Hauptstraße 1\n10827 Berlin",
        country="DE",
        tax_name="VAT",
        tax_ppm=190_000,
    )
    credit.grant(tenant=person.tenant, amount_pico=5 * 10**12, reason="deposit", created_by="tests")
    begun = calendar_months.last_month(timezone.now(), person.tenant.time_zone).start
    sold = [
        offer(
            "acme", model, input_pico=inward, cached_pico=inward // 10, output_pico=outward,
            since=begun - timedelta(days=30),
        )
        for model, (inward, outward) in MODELS.items()
    ]  # fmt: skip
    for day in range(6):
        for number, each in enumerate(sold):
            served(
                person.tenant, each, at=begun + timedelta(days=day, hours=9 + number),
                team_id=person.team.pk, input_tokens=4_100_000 + 37_011 * day * (number + 1),
                cached_tokens=1_300_000, output_tokens=610_000 + 9_973 * day,
            )  # fmt: skip
    return begun, sold


def test_a_month_from_prices_to_a_reconciled_bill(
    visit: Callable[..., Visit], operator: Person, tmp_path: Path
) -> None:
    begun, sold = month_of(operator)
    window = visit(operator)

    _approve_newer_prices(window)
    _issue_the_invoice(window)
    owed_more_pico = _reconcile(window, _bill_of(begun, sold, folder=tmp_path))

    _read_the_ledger(window, owed_more_pico)


def test_the_first_page_charts_what_the_house_earns(
    visit: Callable[..., Visit], operator: Person
) -> None:
    # given: a list price under which the supplier asks a fifth less
    sold = offer("acme", "swift-1", input_pico=250_000, output_pico=2_000_000)
    now = timezone.now()
    for ago in range(20):
        tokens = 40_000 + 9_000 * (ago * 7 % 11)
        served(
            operator.tenant, sold, at=now - timedelta(days=ago), output_tokens=tokens,
            supplier_share=Decimal("0.8"),
        )  # fmt: skip
    # when
    page = visit(operator).open("/admin/")
    page.wait_for_selector("[data-chart] svg")
    # then
    rows = page.locator("details.house-more tbody tr").count()
    assert rows == 30
    assert "20" in page.locator(".house-key.c3").inner_text()
    keep(page, "books-margin")


def _approve_newer_prices(window: Visit) -> None:
    """Two models became cheaper and one dearer in a newer price history; two are approved."""
    was = {"acme/swift-2": 900_000, "acme/swift-2-mini": 300_000, "acme/swift-2-pro": 4_000_000}
    price_import.import_history(
        {sku: [_dated(output)] for sku, output in was.items()},
        source="genai-prices 0.0.29",
        recorded_by="seed",
    )
    now_at = {"acme/swift-2": 750_000, "acme/swift-2-mini": 240_000, "acme/swift-2-pro": 4_400_000}
    price_proposals.propose(
        {sku: [_dated(output)] for sku, output in now_at.items()},
        source="genai-prices 0.0.31",
        now=timezone.now(),
    )
    page = window.open("/admin/billing/priceproposal/?state__exact=pending")
    for row in page.locator("#result_list tbody tr").all()[:2]:
        row.locator("input.action-select").check()
    page.select_option("select[name=action]", "approve")
    keep(page, "books-price-approval")
    page.locator("button[name=index]").click()
    page.wait_for_selector("text=2 prices are in force or scheduled")
    states = PriceProposal.objects.order_by("sku").values_list("state", flat=True)
    assert list(states) == ["approved", "approved", "pending"]


def _dated(output_pico: int) -> DatedRates:
    rates = Rates(
        input_pico=output_pico // 4,
        cache_read_pico=output_pico // 40,
        cache_write_5m_pico=output_pico // 4,
        cache_write_1h_pico=output_pico // 4,
        output_pico=output_pico,
        reasoning_pico=output_pico,
    )
    return DatedRates(0, 0, timezone.now() - timedelta(days=90), None, rates)


def _issue_the_invoice(window: Visit) -> None:
    page = window.open("/admin/billing/invoice/draft-due/")
    page.click("text=Make the drafts")
    page.wait_for_selector("text=1 drafts are made")
    invoice = Invoice.objects.get()
    page = window.open(f"/admin/billing/invoice/{invoice.pk}/change/")
    page.click("button:has-text('Finalise')")
    page.wait_for_selector("text=is issued")
    keep(page, "books-invoice")
    invoice.refresh_from_db()
    charged = sum(event.tenant_cost_pico for event in UsageEvent.objects.all())
    assert (invoice.state, invoice.usage_pico) == (Invoice.State.FINALISED, charged)
    if PICTURES:
        printed = page.request.get(f"/invoices/{invoice.pk}/pdf/").body()
        (Path(PICTURES) / "books-invoice.pdf").write_bytes(printed)


def _bill_of(begun: datetime, sold: list[Priced], *, folder: Path) -> Path:
    """The supplier's month: one day with more tokens than ours, one at another price."""
    rows = ["date,model,input_tokens,output_tokens,cost_usd"]
    for event in UsageEvent.objects.order_by("occurred_at", "sku"):
        cost, output = Decimal(event.supplier_cost_pico), event.output_tokens
        day = (event.occurred_at - begun).days
        if (day, event.model) == (2, "swift-1"):
            cost, output = cost * 11 / 10, output * 11 // 10
        if (day, event.model) == (4, "swift-1-mini"):
            cost = cost * 21 / 20
        cells = (event.occurred_at.date(), event.model, event.input_tokens, output, cost / 10**12)
        rows.append(
            ",".join(f"{cell:f}" if isinstance(cell, Decimal) else str(cell) for cell in cells)
        )
    path = folder / "acme-usage.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _reconcile(window: Visit, bill: Path) -> int:
    """What the accepted bill asks beyond our books."""
    page = window.open("/admin/billing/providerbill/add/")
    page.select_option("select[name=provider]", "acme")
    page.set_input_files("input[name=file]", str(bill))
    page.click("text=Upload and compare")
    page.wait_for_selector("text=By day and model")
    keep(page, "books-reconciliation")
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier="acme")
    before = ledger.balance(payable)
    page.click("button:has-text('Accept')")
    page.wait_for_selector("text=Accepted by alice")
    return before - ledger.balance(payable)


def _read_the_ledger(window: Visit, owed_more_pico: int) -> None:
    page = window.open("/admin/billing/account/")
    assert page.locator(".house-tag:has-text('balanced')").count() == 1
    debit, credit_sum = page.locator("section.house-panel strong").all_inner_texts()
    assert debit == credit_sum
    keep(page, "books-ledger")
    page.click("#result_list a:has-text('Provider Payable')")
    page.wait_for_selector("text=Before these")
    keep(page, "books-account")
    newest = page.locator("table.house-table tbody tr").first.inner_text()
    assert usd_json(owed_more_pico).decode() in newest.replace("\u2009", "")
