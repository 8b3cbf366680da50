"""The receipt of bought credit: numbered and written down in the transaction that grants it.

Seller, buyer and tax stand as they were when the money came; nothing alters them afterwards.
"""

from datetime import datetime

from billing.invoicing import numbers
from billing.invoicing.documents import buyer_of
from billing.models import BillingProfile, NumberSeries, Receipt, TopUp
from billing.models.invoices import PPM
from billing.money import half_away


def issue(topup: TopUp, *, seller: dict[str, str], now: datetime) -> Receipt:
    """Take the next number; the caller's transaction has just paid this purchase."""
    profile = BillingProfile.objects.filter(tenant=topup.tenant).first()
    buyer = buyer_of(profile) if profile else {"legal_name": topup.tenant.name}
    # The profile may have changed since the sum was fixed; then no rate is printed.
    is_same = profile and half_away(topup.net_cents * profile.tax_ppm, PPM) == topup.tax_cents
    return Receipt.objects.create(
        topup=topup,
        number=numbers.next_number(NumberSeries.Document.RECEIPT, now),
        parties={"seller": seller, "buyer": buyer},
        tax_ppm=profile.tax_ppm if profile and is_same else None,
        payment_reference=topup.payment_reference,
        net_cents=topup.net_cents,
        tax_cents=topup.tax_cents,
        issued_at=now,
    )
