"""The FOCUS export: sums to the documents exactly, in the columns that FOCUS 1.2 requires."""

import csv
from decimal import Decimal
from pathlib import Path

from billing.invoicing import focus
from tests.billing.invoicing.test_invoices import Office, office

__all__ = ["office"]

# Required in every FOCUS 1.2 data set, and never null where the second part says so.
REQUIRED = set(
    """BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd
    BillingPeriodStart ChargeCategory ChargeClass ChargeDescription ChargePeriodEnd
    ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost PricingQuantity
    PricingUnit ProviderName PublisherName ServiceCategory ServiceName""".split()
)
NULLABLE = {"ChargeClass", "PricingQuantity", "PricingUnit"}
CATEGORIES = {"Usage", "Credit", "Tax", "Purchase", "Adjustment"}


def test_rows_sum_to_the_invoice_and_its_credit_note(office: Office, tmp_path: Path) -> None:
    # given
    office.books.served(usage=(1_000_003, 200_001), hold_nano=10**10)
    office.books.served(usage=(1_000_000, 0), hold_nano=10**9)
    office.books.drain()
    invoice = office.issue()
    note = office.credit_note(invoice, 333)
    # when
    rows, credited = list(focus.of_invoice(invoice)), list(focus.of_credit_note(note))
    # then
    assert focus.total(rows) == Decimal(invoice.total_cents) / 100
    assert focus.total(credited) == -Decimal(note.total_cents) / 100
    exact = sum((Decimal(row["x_ExactCost"] or 0) for row in rows), Decimal())
    assert exact == Decimal(int(invoice.usage_pico)).scaleb(-12)
    for row in rows + credited:
        assert REQUIRED <= set(row)
        assert [name for name in REQUIRED - NULLABLE if not row[name]] == []
        assert row["ChargeCategory"] in CATEGORIES
        assert bool(row["PricingQuantity"]) == bool(row["PricingUnit"])
    _keep(tmp_path / "focus.csv", rows + credited)


def _keep(path: Path, rows: list[focus.Row]) -> None:
    """Written as the export writes it, for a look by the specification's own validator."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, focus.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
