"""The receipt of bought credit, and the note when money goes back or comes again: each numbered and
written down in the transaction that moves the credit.

Seller, buyer and tax stand as they were when the money came; nothing alters them afterwards.
"""

from datetime import datetime
from typing import Final, TypedDict

from billing.invoicing import numbers
from billing.invoicing.documents import buyer_of
from billing.models import BillingProfile, NumberSeries, Receipt, Refund, Tenant, TopUp
from billing.money import half_away
from billing.rates import PPM

TAXED_LATER: Final = (
    "No tax is charged yet, as there was no billing profile: it is on the invoice of the usage that"
    " this credit covers."
)


class Parties(TypedDict):
    seller: dict[str, str]
    buyer: dict[str, str]


class Stated(TypedDict):
    """What stands on a document of a purchase as it was when the money came."""

    parties: Parties
    tax_ppm: int | None
    payment_reference: str


def issue(topup: TopUp, *, seller: dict[str, str], now: datetime) -> Receipt:
    """Take the next number; the caller's transaction has just paid this purchase."""
    return Receipt.objects.create(
        topup=topup,
        number=numbers.next_number(NumberSeries.Document.RECEIPT, now),
        **_stated(topup, seller),
        net_cents=topup.net_cents,
        tax_cents=topup.tax_cents,
        issued_at=now,
    )


def issue_refund(
    topup: TopUp,
    *,
    cause: str,
    net_cents: int,
    tax_cents: int,
    seller: dict[str, str],
    now: datetime,
) -> Refund:
    """Take the next number; the caller's transaction takes this credit back, or gives it back
    (negative sums)."""
    receipt = Receipt.objects.filter(topup=topup).first()
    if receipt is None:
        # Bought before purchases had receipts: the parties are those of today.
        stated = _stated(topup, seller)
    else:
        stated = {
            "parties": receipt.parties,
            "tax_ppm": receipt.tax_ppm,
            "payment_reference": receipt.payment_reference,
        }
    return Refund.objects.create(
        topup=topup,
        cause=cause,
        number=numbers.next_number(NumberSeries.Document.REFUND, now),
        receipt=receipt.number if receipt else "",
        net_cents=net_cents,
        tax_cents=tax_cents,
        issued_at=now,
        **stated,
    )


def _stated(topup: TopUp, seller: dict[str, str]) -> Stated:
    profile = BillingProfile.objects.filter(tenant=topup.tenant).first()
    # The profile may have changed since the sum was fixed; then no rate is printed.
    is_same = profile and half_away(topup.net_cents * profile.tax_ppm, PPM) == topup.tax_cents
    buyer = buyer_as_of_now(topup.tenant)
    if topup.is_taxed_later:
        buyer["tax_note"] = TAXED_LATER
    return {
        "parties": {"seller": seller, "buyer": buyer},
        "tax_ppm": profile.tax_ppm if profile and is_same else None,
        "payment_reference": topup.payment_reference,
    }


def buyer_as_of_now(tenant: Tenant) -> dict[str, str]:
    profile = BillingProfile.objects.filter(tenant=tenant).first()
    return buyer_of(profile) if profile else {"legal_name": tenant.name}
