"""Invoices on the pages: an operator issues and settles them, a tenant reads its own."""

from datetime import timedelta
from unittest.mock import ANY

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.invoicing import calendar_months, documents, receivables
from billing.models import AdjustmentNote, BillingProfile, CreditNote, Invoice, Payment, Tenant
from gateway.kinds import Role
from gateway.models import Member
from tests.gateway.console_rows import offer, served
from tests.people import Person

SELLER = {"legal_name": "Tokenhouse Ltd"}


@pytest.fixture
def operator(admin_client: Client, redis_client: redis.Redis) -> Client:
    return admin_client


def draft_for(tenant: Tenant) -> Invoice:
    """A draft of last month with one paid request on it."""
    BillingProfile.objects.create(
        tenant=tenant,
        legal_name="Aurora GmbH",
        address="Hauptstraße 1",
        country="DE",
        tax_name="VAT",
        tax_ppm=200_000,
    )
    now = timezone.now()
    period = calendar_months.last_month(now, tenant.time_zone)
    served(tenant, offer(), at=period.start + timedelta(hours=30), input_tokens=50_000_000)
    return documents.draft(tenant=tenant, period=period, created_by="test", now=now)


def page_of(invoice: Invoice) -> str:
    return f"/admin/billing/invoice/{invoice.pk}/change/"


@pytest.mark.django_db(transaction=True)
def test_an_operator_drafts_finalises_and_settles(operator: Client, alice: Person) -> None:
    # given
    invoice = draft_for(alice.tenant)
    # when
    assert operator.post("/admin/billing/invoice/draft-due/").status_code == 302
    page = operator.get(page_of(invoice))
    assert page.status_code == 200
    operator.post(page_of(invoice), {"do": "finalise"})
    # then
    invoice.refresh_from_db()
    assert (invoice.state, invoice.number) == ("finalised", ANY)
    pdf = operator.get(f"/invoices/{invoice.pk}/pdf/")
    assert (pdf.status_code, pdf["Content-Type"]) == (200, "application/pdf")
    assert pdf.content.startswith(b"%PDF-")


@pytest.mark.django_db(transaction=True)
def test_a_payment_and_a_credit_note_are_booked_from_the_page(
    operator: Client, alice: Person
) -> None:
    # given
    draft = draft_for(alice.tenant)
    invoice = documents.finalise(
        invoice_id=draft.pk, seller=SELLER, actor="ada", now=timezone.now()
    )
    payment = {"do": "pay", "reference": "bank-1", "received_on": "2026-04-02"}
    # when
    for amount in ("-1", "NaN", "1e400", "\u0661", "1.001", "99999"):
        operator.post(page_of(invoice), {**payment, "amount_usd": amount})
    assert (Payment.objects.count(), CreditNote.objects.count()) == (0, 0)
    operator.post(page_of(invoice), {**payment, "amount_usd": "1.20"})
    operator.post(page_of(invoice), {"do": "credit", "net_usd": "0.50", "reason": "slow"})
    # then
    assert Payment.objects.get().amount_cents == 120
    assert CreditNote.objects.get().net_cents == 50
    assert receivables.open_cents(invoice) == invoice.total_cents - 120 - 60


def test_a_tenant_reads_its_invoices_and_nobody_else_s(
    client: Client,
    alice: Person,
    charlie: Person,
    transactional_db: None,
    redis_client: redis.Redis,
) -> None:
    # given
    draft = draft_for(alice.tenant)
    # then
    client.force_login(alice.user)
    assert client.get(f"/invoices/{draft.pk}/pdf/").status_code == 404
    invoice = documents.finalise(
        invoice_id=draft.pk, seller=SELLER, actor="ada", now=timezone.now()
    )
    assert invoice.number in client.get("/billing/").content.decode()
    assert client.get(f"/invoices/{invoice.pk}/pdf/").status_code == 200
    rows = client.get(f"/invoices/{invoice.pk}/focus.csv").content.decode().splitlines()
    assert rows[0].startswith("BilledCost,BillingAccountId")
    Member.objects.filter(user=alice.user).update(role=Role.DEVELOPER)
    assert client.get("/billing/").status_code == 403
    assert client.get(f"/invoices/{invoice.pk}/pdf/").status_code == 404
    assert client.get(f"/invoices/{invoice.pk}/focus.csv").status_code == 404
    client.force_login(charlie.user)
    assert client.get(f"/invoices/{invoice.pk}/pdf/").status_code == 404
    assert invoice.number not in client.get("/billing/").content.decode()


def test_a_stranger_signs_in_first(client: Client, db: None) -> None:
    assert client.get("/invoices/1/pdf/").status_code == 302


@pytest.mark.django_db(transaction=True)
def test_an_operator_adjusts_and_the_tenant_reads_its_note(
    operator: Client, client: Client, alice: Person, charlie: Person
) -> None:
    # given
    facts = {
        "tenant": alice.tenant.pk,
        "cause": "service",
        "given_usd": "2.50",
        "month": "2026-03-17",
        "reason": "slow week",
    }
    # when
    for wrong in ({"given_usd": "0"}, {"given_usd": "1e9"}, {"cause": "rebate"}, {"reason": " "}):
        operator.post("/admin/billing/adjustmentnote/add/", {**facts, **wrong})
    assert not AdjustmentNote.objects.exists()
    assert operator.post("/admin/billing/adjustmentnote/add/", facts).status_code == 302
    # then
    note = AdjustmentNote.objects.get()
    assert note.months == {"2026-03": "2500000000000"}
    client.force_login(alice.user)
    assert note.number in client.get("/billing/").content.decode()
    assert client.get(f"/adjustments/{note.pk}/pdf/").status_code == 200
    listed = client.get(f"/api/v1/tenants/{alice.tenant.slug}/adjustments/").json()
    assert [(row["number"], row["charged_usd"]) for row in listed] == [(note.number, "-2.5")]
    client.force_login(charlie.user)
    assert client.get(f"/adjustments/{note.pk}/pdf/").status_code == 404
