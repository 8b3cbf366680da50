"""Credit that has borne no tax: bought before there was a billing profile, or given back with its
tax. Usage that it covers is taxed on the invoice of that usage."""

from django.db.models import Sum

from billing.models import CreditGrant, UntaxedCredit


def mark(grant: CreditGrant, amount_pico: int) -> None:
    """Write down that this much of a grant, which the caller's transaction has just made, has borne
    no tax."""
    if amount_pico:
        UntaxedCredit.objects.create(grant=grant, amount_pico=amount_pico)


def granted_pico(tenant_id: int, *, upto_transfer: int) -> int:
    """All that was granted untaxed, less what of it has expired."""
    granted = UntaxedCredit.objects.filter(
        grant__tenant=tenant_id, grant__transfer_id__lte=upto_transfer
    ).aggregate(total=Sum("amount_pico"))["total"]
    expired = CreditGrant.objects.filter(
        tenant=tenant_id, transfer_id__lte=upto_transfer, expires__untaxed__isnull=False
    ).aggregate(total=Sum("amount_pico"))["total"]
    return int(granted or 0) + int(expired or 0)
