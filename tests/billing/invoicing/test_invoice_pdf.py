"""The printed invoice: what a reader finds on it, and nothing of a template gone wrong."""

from io import BytesIO

import pytest
from pypdf import PdfReader

from billing.errors import InvoiceRefused
from billing.invoicing import pdf
from billing.models import BillingProfile
from tests.billing.invoicing.test_invoices import MARCH, SECOND_OF_APRIL, Office, office

__all__ = ["office"]


def text_of(document: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(document)).pages)


def test_an_invoice_says_who_what_and_how_much(office: Office) -> None:
    # given
    office.books.served(usage=(1_000_000, 200_000), hold_nano=10**10, team=7)
    office.books.served(usage=(500_000, 100_001), hold_nano=10**10)
    office.books.drain()
    invoice = office.issue()
    # when
    shown = text_of(pdf.of_an_invoice(invoice, team_names={7: "Research"}))
    # then
    for expected in (
        "Invoice INV-2026-000001",
        "Aurora GmbH",
        "Hauptstraße 1",
        "Tokenhouse Ltd",
        "1,500,000",
        "$3.00",
        "$2.40",
        "Covered by your credit",
        "VAT 20 %",
        "$5.28",
        "$5.400008 exactly",
        "Research",
        "no team",
    ):
        assert expected in shown


def test_the_same_invoice_is_the_same_file(office: Office) -> None:
    # given
    office.use(2_000_000_000_000)
    invoice = office.issue()
    # then
    assert pdf.of_an_invoice(invoice, team_names={}) == pdf.of_an_invoice(invoice, team_names={})


@pytest.mark.parametrize("name", ['#panic("x") *bold* $x$ \\ ]', "Ёлка & Söhne <b>"])
def test_a_name_is_text_whatever_it_holds(office: Office, name: str) -> None:
    # given
    BillingProfile.objects.update(legal_name=name)
    office.use(2_000_000_000_000)
    # when
    shown = text_of(pdf.of_an_invoice(office.issue(), team_names={}))
    # then
    assert name.split()[0][:5] in shown


def test_a_letter_that_no_font_has_is_refused_not_left_out(office: Office) -> None:
    # given
    BillingProfile.objects.update(legal_name="Acme \u0378")
    office.use(2_000_000_000_000)
    invoice = office.issue()
    # then
    with pytest.raises(InvoiceRefused, match="Install a font"):
        pdf.of_an_invoice(invoice, team_names={})


def test_a_draft_and_a_void_one_say_so(office: Office) -> None:
    # given
    office.use(2_000_000_000_000)
    draft = office.draft()
    # then
    assert "DRAFT" in text_of(pdf.of_an_invoice(draft, team_names={}))
    assert "DRAFT" not in text_of(pdf.of_an_invoice(office.finalise(draft), team_names={}))


def test_a_credit_note_names_its_invoice(office: Office) -> None:
    # given
    office.use(11_000_000_000_000)
    note = office.credit_note(office.issue(MARCH, SECOND_OF_APRIL), 333)
    # when
    shown = text_of(pdf.of_a_credit_note(note))
    # then
    for expected in ("Credit note CN-2026-000001", "INV-2026-000001", "slow week", "-$4.00"):
        assert expected in shown
