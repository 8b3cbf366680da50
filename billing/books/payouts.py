"""Paying sellers what we owe them: recorded once per bank reference, never more than is owed.

What an expired request may still be billed is exposure, not owed: it is not paid out before its
end is known. House accounts take no locks, so payouts take turns.
"""

from collections.abc import Iterable
from datetime import date, datetime

from django.db import transaction
from django.db.models import Sum

from billing import audit, locks
from billing.books import ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.errors import PayoutRefused
from billing.models import AccountSum, Payout
from billing.money import PICO_PER_CENT

REFERENCE_LENGTH_MAX = 90


def owed_pico(supplier: str) -> int:
    """What a supplier has earned and was not paid, open exposures left out."""
    return owed_to_each([supplier])[supplier]


def owed_to_each(suppliers: Iterable[str]) -> dict[str, int]:
    """The same of many at once."""
    owed = dict.fromkeys(suppliers, 0)
    kinds = (Kind.PROVIDER_PAYABLE, Kind.SUPPLIER_EXPOSURE)
    booked = AccountSum.objects.filter(account__kind__in=kinds, account__supplier__in=list(owed))
    for supplier, total in booked.values_list("account__supplier").annotate(Sum("amount_pico")):
        owed[supplier] -= int(total)
    return owed


def record(
    *,
    supplier: str,
    amount_cents: int,
    reference: str,
    paid_on: date,
    actor: str,
    now: datetime,
) -> Payout:
    """Book money sent; the same reference with the same facts returns the first booking."""
    reference = reference.strip()
    if not 0 < len(reference) <= REFERENCE_LENGTH_MAX or not reference.isprintable():
        raise PayoutRefused("a payout needs the bank's reference")
    if type(amount_cents) is not int or amount_cents <= 0:
        raise PayoutRefused(f"not an amount that can be paid: {amount_cents}")
    if paid_on > now.date():
        raise PayoutRefused("a payout is recorded when the money was sent, not before")
    with transaction.atomic():
        locks.payouts_until_commit()
        known = Payout.objects.filter(reference=reference).first()
        if known is not None:
            if (known.supplier, known.amount_cents, known.paid_on) != (
                supplier,
                amount_cents,
                paid_on,
            ):
                raise PayoutRefused(f"{reference} is booked already, with other facts")
            return known
        amount_pico = amount_cents * PICO_PER_CENT
        owed = owed_pico(supplier)
        if amount_pico > owed:
            raise PayoutRefused(f"{max(owed, 0) // PICO_PER_CENT} whole cents are owed, not more")
        return _post(supplier, amount_cents, reference, paid_on, actor, now)


def _post(
    supplier: str, amount_cents: int, reference: str, paid_on: date, actor: str, now: datetime
) -> Payout:
    amount_pico = amount_cents * PICO_PER_CENT
    transfer = ledger.post(
        Draft(
            code=Code.PAYOUT,
            legs=(
                Leg(AccountKey(Kind.PROVIDER_PAYABLE, supplier=supplier), amount_pico),
                Leg(AccountKey(Kind.CASH), -amount_pico),
            ),
            idempotency_key=f"payout:{reference}",
            memo=f"{supplier}: {reference}",
        )
    )
    audit.record(
        actor=actor,
        action="seller.payout",
        subject=supplier,
        after={"amount_cents": amount_cents, "reference": reference},
        now=now,
    )
    return Payout.objects.create(
        supplier=supplier,
        amount_cents=amount_cents,
        reference=reference,
        paid_on=paid_on,
        transfer=transfer,
        created_by=actor[:150],
        created_at=now,
    )


def of(supplier: str, *, limit: int) -> list[Payout]:
    """The latest payouts to a supplier."""
    return list(Payout.objects.filter(supplier=supplier).order_by("-paid_on", "-pk")[:limit])


def between(supplier: str, *, since: date, until: date) -> list[Payout]:
    """Payouts from one day to before another, newest first."""
    found = Payout.objects.filter(supplier=supplier, paid_on__gte=since, paid_on__lt=until)
    return list(found.order_by("-paid_on", "-pk"))
