"""Rows of money altered past the triggers are found at the next audit, and stay found."""

from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client

from billing.credit import balances as credit
from billing.errors import FindingRefused
from billing.integrity import findings, invariants, row_seals, sealing
from billing.integrity.row_kinds import KINDS
from billing.invoicing import calendar_months, documents, receivables
from billing.models import (
    AuditEntry,
    BillingProfile,
    CreditGrant,
    EventSeal,
    Finding,
    InvariantCheck,
    Invoice,
    RowSeal,
    Tenant,
    UsageEvent,
)
from billing.operations import quarantine
from tests.billing.open_books import Books

NOW = datetime(2026, 4, 2, 9, tzinfo=UTC)
SELLER = {"legal_name": "Tokenhouse Ltd", "address": "1 Mint Street", "country": "IE"}


@pytest.fixture
def sealed(books: Books) -> Books:
    """Two events, grants, an issued invoice with a payment and a credit note; all of it sealed."""
    credit.change_terms(tenant=books.tenant, actor="ada", now=NOW, credit_limit_pico=1_000 * 10**12)
    BillingProfile.objects.create(
        tenant=books.tenant,
        legal_name="Aurora GmbH",
        address="Hauptstraße 1",
        country="DE",
        tax_name="VAT",
        tax_ppm=200_000,
    )
    for pico in (2_000_000_000_000, 1_200_000_000_000):
        usage = (pico // 4_000_000, pico // 16_000_000)
        books.served(usage=usage, hold_nano=pico // 1000 + 1000)
        books.drain()
    tenant = Tenant.objects.get(pk=books.tenant.pk)
    march = calendar_months.month(2026, 3, "UTC")
    draft = documents.draft(tenant=tenant, period=march, created_by="ada", now=NOW)
    invoice = documents.finalise(invoice_id=draft.pk, seller=SELLER, actor="ada", now=NOW)
    receivables.record_payment(
        invoice_id=invoice.pk,
        amount_cents=100,
        reference="bank-1",
        received_on=NOW.date(),
        created_by="ada",
        now=NOW,
    )
    receivables.issue_credit_note(
        invoice_id=invoice.pk, net_cents=10, reason="slow week", created_by="ada", now=NOW
    )
    checked(books)
    return books


def checked(books: Books, *, days: int = 0) -> bool:
    """The continuous check; whether no altered row is known."""
    invariants.check_all(books.desk.client, now=NOW + timedelta(days=days))
    return InvariantCheck.objects.get(name=findings.AS_SEALED).holds


def audited(books: Books, *, days: int) -> bool:
    invariants.audit(books.desk.client, now=NOW + timedelta(days=days))
    return InvariantCheck.objects.get(name=findings.AS_SEALED).holds


def past_triggers(table: str, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE billing_{table} DISABLE TRIGGER USER")
        cursor.execute(sql.format(table=f"billing_{table}"))
        cursor.execute(f"ALTER TABLE billing_{table} ENABLE TRIGGER USER")


FIRST = " WHERE id = (SELECT min(id) FROM {table})"
ALTERED = (
    ("usageevent", "UPDATE {table} SET output_tokens = output_tokens - 1" + FIRST, "events"),
    ("usageevent", "UPDATE {table} SET quarantine_reason = 'x'" + FIRST, "events"),
    ("usageevent", "UPDATE {table} SET drained_at = drained_at + interval '1s'" + FIRST, "events"),
    ("transfer", "UPDATE {table} SET memo = 'as agreed'" + FIRST, "transfers"),
    ("entry", "UPDATE {table} SET amount_pico = -amount_pico", "transfers"),
    ("creditgrant", "UPDATE {table} SET amount_pico = amount_pico + 1" + FIRST, "grants"),
    ("creditgrant", "UPDATE {table} SET reason = 'a gift'" + FIRST, "grants"),
    ("invoice", "UPDATE {table} SET tax_cents = tax_cents - 1", "invoices"),
    ("invoice", "UPDATE {table} SET state = 'draft'", "invoices"),
    ("invoiceline", "UPDATE {table} SET exact_pico = exact_pico - 1" + FIRST, "invoices"),
    ("invoiceline", "DELETE FROM {table}" + FIRST, "invoices"),
    ("coveredspan", "UPDATE {table} SET posted_upto = posted_upto + 1", "invoices"),
    ("creditnote", "UPDATE {table} SET net_cents = net_cents + 1", "credit notes"),
    ("payment", "UPDATE {table} SET reference = 'bank-2'", "payments"),
    ("payment", "DELETE FROM {table}", "payments"),
)


@pytest.mark.parametrize(("table", "sql", "what"), ALTERED)
def test_an_altered_row_is_found_at_the_next_audit_and_stays_found(
    table: str, sql: str, what: str, sealed: Books
) -> None:
    # given
    assert audited(sealed, days=1)
    # when
    past_triggers(table, sql)
    # then: the next day, and on every day after it
    assert not audited(sealed, days=2)
    (finding,) = Finding.objects.all()
    assert (finding.what, finding.found_at) == (what, NOW + timedelta(days=2))
    assert not checked(sealed, days=3)
    assert not audited(sealed, days=9)
    (again,) = Finding.objects.all()
    assert (again.pk, again.seen_at) == (finding.pk, NOW + timedelta(days=9))


def test_a_finding_ends_when_somebody_says_what_it_was(sealed: Books) -> None:
    # given
    past_triggers("creditgrant", ALTERED[5][1])
    assert not audited(sealed, days=1)
    (finding,) = Finding.objects.all()
    by = {"resolved_by": "ada", "now": NOW + timedelta(days=1)}
    # when
    with pytest.raises(FindingRefused):
        sealing.resolve([finding.pk], reason=" ", **by)  # type: ignore[arg-type]
    assert not checked(sealed, days=1)
    assert sealing.resolve([finding.pk], reason="ticket 7", **by) == 1  # type: ignore[arg-type]
    # then: what it says now is what it has to say
    assert checked(sealed, days=1)
    assert audited(sealed, days=2)
    entry = AuditEntry.objects.get(action="finding.resolve")
    assert (entry.actor, entry.reason) == ("ada", "ticket 7")
    past_triggers("creditgrant", ALTERED[5][1])
    assert not audited(sealed, days=3)
    assert Finding.objects.filter(resolved_at=None).count() == 1


def test_rows_put_in_or_swapped_and_seals_rewritten_are_found(sealed: Books) -> None:
    # a row among old ones
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_untaxedcredit (id, grant_id, amount_pico)"
            " SELECT -1, min(id), 5 FROM billing_creditgrant"
        )
    # two rows that swap what they say
    past_triggers(
        "usageevent",
        "WITH two AS (SELECT id, drained_at, body_hash FROM {table} ORDER BY id LIMIT 2)"
        " UPDATE {table} r SET body_hash = o.body_hash FROM two o WHERE o.id <> r.id",
    )
    # a seal that was made to fit
    RowSeal.objects.filter(what="invoices").update(digest=0)
    assert not audited(sealed, days=1)
    assert set(Finding.objects.values_list("what", flat=True)) == {
        "events",
        "invoices",
        "untaxed credit",
    }


def test_a_seal_that_was_taken_out_breaks_the_chain(sealed: Books) -> None:
    # given: two seals of grants
    credit.grant(tenant=sealed.tenant, amount_pico=7, reason="more", created_by="test")
    assert checked(sealed)
    seals = RowSeal.objects.filter(what="grants").order_by("pk")
    first, second = seals
    assert second.first == first.after
    # when
    first.delete()
    # then
    assert not audited(sealed, days=1)
    (finding,) = Finding.objects.all()
    assert (finding.what, finding.first) == ("grants", second.first)


def test_what_a_decision_changes_is_sealed_after_it(books: Books) -> None:
    # given
    books.served(cost_pico=281_000_000)
    books.drain()
    books.served()
    books.drain()
    assert checked(books)
    event = UsageEvent.objects.get(state="quarantined")
    assert not RowSeal.objects.filter(what="decided events").exists()
    # when
    quarantine.resolve_all(
        books.desk.client,
        event_ids=[event.pk],
        tenant_pico=1_000,
        supplier_pico=7,
        resolved_by="alice",
        reason="seen",
        now=NOW,
    )
    # then
    assert checked(books)
    assert audited(books, days=1)
    past_triggers(
        "usageevent", f"UPDATE {{table}} SET supplier_cost_pico = 8 WHERE id = {event.pk}"
    )
    assert not audited(books, days=2)
    assert list(Finding.objects.values_list("what", flat=True)) == ["decided events"]


def test_voiding_an_invoice_alters_nothing_that_is_sealed(books: Books, sealed: Books) -> None:
    # given: a month of its own, without payments
    tenant = Tenant.objects.get(pk=books.tenant.pk)
    april = calendar_months.month(2026, 4, "UTC")
    now = datetime(2026, 5, 3, tzinfo=UTC)
    books.desk.now_ms = int(datetime(2026, 4, 9, tzinfo=UTC).timestamp() * 1000)
    books.served()
    books.drain()
    draft = documents.draft(tenant=tenant, period=april, created_by="ada", now=now)
    documents.finalise(invoice_id=draft.pk, seller=SELLER, actor="ada", now=now)
    assert checked(books, days=40)
    # when
    documents.void(invoice_id=draft.pk, reason="address", voided_by="ada", now=now)
    # then
    assert audited(books, days=41)
    assert Invoice.objects.get(pk=draft.pk).state == "void"


def test_new_rows_are_sealed_in_small_ranges_behind_each_other(
    sealed: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(row_seals, "ROWS_MAX", 2)
    for _ in range(5):
        credit.grant(tenant=sealed.tenant, amount_pico=7, reason="more", created_by="test")
    # when
    before = RowSeal.objects.filter(what="grants").count()
    checked(sealed)
    # then
    seals = list(RowSeal.objects.filter(what="grants").order_by("pk"))
    assert [seal.rows for seal in seals[before:]] == [2, 2, 1]
    assert all(seal.first == last.after for last, seal in zip(seals, seals[1:], strict=False))
    assert sum(seal.rows for seal in seals) == CreditGrant.objects.count()
    assert row_seals.seal_new(now=NOW) == 0


def test_every_column_of_money_is_a_fact() -> None:
    tables = {model._meta.db_table: model for model in apps.get_models()}
    for kind in KINDS.values():
        for table, facts in kind.columns.items():
            assert {f.column for f in tables[table]._meta.fields} == set(facts.split(", ")), table


def test_an_operator_resolves_on_the_page(sealed: Books, admin_client: Client) -> None:
    past_triggers("payment", "UPDATE {table} SET reference = 'bank-2'")
    assert not audited(sealed, days=1)
    address = "/admin/billing/finding/"
    assert "payments" in admin_client.get(address).content.decode()
    (finding,) = Finding.objects.all()
    form = {"action": "resolve", "_selected_action": [finding.pk]}
    assert "Altered since they were sealed" in admin_client.post(address, form).content.decode()
    admin_client.post(address, {**form, "_confirm": "1", "reason": ""})
    assert Finding.objects.get().resolved_at is None
    admin_client.post(address, {**form, "_confirm": "1", "reason": "the bank renamed it"})
    assert Finding.objects.get().resolved_by == "admin"
    assert EventSeal.objects.count() == 0
    assert checked(sealed, days=1)
