"""Invoices as FOCUS 1.2 rows (FinOps Open Cost and Usage Specification), summing to their totals.

One row per line, one for what credit covers, one for tax; a credit note is a correction.
`BilledCost` is what the document says, in whole cents; `EffectiveCost` of a usage row is exact.
Columns of ours begin with `x_`, as the specification asks.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from billing.invoicing.lines import TOKEN_CLASSES
from billing.models import CreditNote, Invoice, InvoiceLine
from billing.money import PICO_PER_CENT, PICO_PER_USD, half_away, usd
from billing.rates import PPM

Row = dict[str, str]

COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "AvailabilityZone",
    "x_ExactCost",
)
RATE_OF_UNIT: Final = {leaf.unit: leaf.rate for leaf in TOKEN_CLASSES}
SERVICE: Final = {
    "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": "Generative AI",
}


def of_invoice(invoice: Invoice) -> Iterator[Row]:
    """The rows of an issued invoice; their `BilledCost` sums to its total."""
    shared = _shared(invoice)
    lines = invoice.lines.select_related("price_version__made_from").order_by("position")
    charges = [_charge(line) for line in lines]
    for charge in charges:
        yield _row(shared, charge)
    if invoice.covered_cents:
        carried = "Covered by credit" if invoice.covered_cents > 0 else "Carried over as credit"
        yield _row(shared, _other("Credit", carried, -invoice.covered_cents, invoice))
    if invoice.tax_cents:
        yield _row(shared, _tax(invoice, charges))


def of_credit_note(note: CreditNote) -> Iterator[Row]:
    """A correction of its invoice's charges, and of their tax."""
    shared = {**_shared(note.invoice), "InvoiceId": note.number}
    described = f"Credit note for {note.invoice.number}: {note.reason}"
    parts = (("Credit", described, note.net_cents), ("Tax", "Tax taken back", note.tax_cents))
    for category, text, cents in parts:
        if cents:
            corrected = {"ChargeClass": "Correction"} if category == "Tax" else {}
            yield _row(shared, {**_other(category, text, -cents, note.invoice), **corrected})


def total(rows: Iterable[Row]) -> Decimal:
    return sum((Decimal(row["BilledCost"]) for row in rows), Decimal())


def _row(shared: Mapping[str, str], own: Mapping[str, str]) -> Row:
    return {name: own.get(name, shared.get(name, "")) for name in COLUMNS}


def _shared(invoice: Invoice) -> Row:
    seller = invoice.parties["seller"]["legal_name"]
    return {
        "BillingAccountId": invoice.tenant.slug,
        "BillingAccountName": invoice.parties["buyer"]["legal_name"],
        "BillingAccountType": "Tenant",
        "BillingCurrency": "USD",
        "PricingCurrency": "USD",
        "BillingPeriodStart": _moment(invoice.period_start),
        "BillingPeriodEnd": _moment(invoice.period_end),
        "InvoiceId": invoice.number or "",
        "InvoiceIssuerName": seller,
        "ProviderName": seller,
        "PublisherName": seller,
        "ServiceName": "LLM inference",
        **SERVICE,
    }


def _charge(line: InvoiceLine) -> Row:
    return _adjusted(line) if line.kind == InvoiceLine.Kind.ADJUSTMENT else _usage(line)


def _tax(invoice: Invoice, charges: Iterable[Row]) -> Row:
    """What is due; at list and contracted cost, the same tax on the charges at these."""
    row = _other("Tax", "Tax", invoice.tax_cents, invoice)
    for column in ("ContractedCost", "ListCost"):
        beyond = sum(Decimal(own[column]) - Decimal(own["BilledCost"]) for own in charges)
        taxed = invoice.taxable_cents * PICO_PER_CENT + int(beyond * PICO_PER_USD)
        row[column] = f"{usd(half_away(taxed * invoice.tax_ppm, PPM)):f}"
    return row


def _adjusted(line: InvoiceLine) -> Row:
    """An adjustment note: its number is the sku of its line. What has no unit price is listed and
    contracted at what is billed."""
    exact, billed = f"{usd(int(line.exact_pico)):f}", _cents(line.amount_cents)
    return {
        "BilledCost": billed,
        "EffectiveCost": exact,
        "ContractedCost": billed,
        "ListCost": billed,
        "x_ExactCost": exact,
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction",
        "ChargeDescription": f"{line.sku}, {line.model}: {line.unit}",
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": _moment(line.service_start),
        "ChargePeriodEnd": _moment(line.service_end),
    }


def _list_rate(line: InvoiceLine) -> int | None:
    """The list price's own rate, where a plan or a discount made another of it."""
    version = line.price_version
    if line.rate_pico is None or version is None or version.made_from is None:
        return line.rate_pico
    rate: int | None = getattr(version.made_from, RATE_OF_UNIT[line.unit])
    return rate or 0


def _usage(line: InvoiceLine) -> Row:
    billed = _cents(line.amount_cents)
    exact = f"{usd(int(line.exact_pico)):f}"
    itemised = line.rate_pico is not None
    unit = "Requests" if line.unit.startswith("requests") else "Tokens"
    price = f"{usd(line.rate_pico):f}" if line.rate_pico is not None else ""
    listed = _list_rate(line)
    return {
        "BilledCost": billed,
        "EffectiveCost": exact,
        "ContractedCost": exact if itemised else billed,
        "ListCost": billed if listed is None else f"{usd(line.quantity * listed):f}",
        "x_ExactCost": exact,
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{line.model}, {line.unit}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _moment(line.service_start),
        "ChargePeriodEnd": _moment(line.service_end),
        "ConsumedQuantity": str(line.quantity),
        "ConsumedUnit": unit,
        "PricingQuantity": str(line.quantity) if itemised else "",
        "PricingUnit": unit if itemised else "",
        "PricingCategory": "Standard" if itemised else "Other",
        "ListUnitPrice": "" if listed is None else f"{usd(listed):f}",
        "ContractedUnitPrice": price,
        "ResourceId": line.model,
        "ResourceName": line.model,
        "ResourceType": "Model",
        "SkuId": line.sku,
        "SkuMeter": line.unit,
        "SkuPriceId": ""
        if line.price_version_id is None
        else f"{line.sku}:{line.price_version_id}",
    }


def _other(category: str, described: str, cents: int, invoice: Invoice) -> Row:
    """A row that is not usage: the document's own sum, over the whole period."""
    sum_usd = _cents(cents)
    return {
        "BilledCost": sum_usd,
        "EffectiveCost": sum_usd,
        "ContractedCost": sum_usd,
        "ListCost": sum_usd,
        "ChargeCategory": category,
        "ChargeDescription": described,
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": _moment(invoice.period_start),
        "ChargePeriodEnd": _moment(invoice.period_end),
    }


def _cents(cents: int) -> str:
    return f"{Decimal(cents).scaleb(-2):f}"


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}"
